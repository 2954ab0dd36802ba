"""What README and the examples promise, run."""

import ast
import re
import runpy
import warnings
from pathlib import Path

import pytest

from pyrogen.cli import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", README, re.S), ids=["first", "in-python", "arviz"])
def test_readme_python(block: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out


@pytest.mark.slow
def test_the_page_on_implicit_models(capsys: pytest.CaptureFixture[str]) -> None:
    first, growing = re.findall(r"```python\n(.*?)```", (ROOT / "docs/implicit.md").read_text(), re.S)
    exec(compile(first, "docs/implicit.md", "exec"), {})
    x, _ = map(float, re.findall(r"-?\d+\.\d+", capsys.readouterr().out))
    assert abs(x - 3) < 0.5
    exec(compile(growing, "docs/implicit.md", "exec"), {})
    assert "2 of 2 stages" in capsys.readouterr().out


def test_the_page_on_translation(capsys: pytest.CaptureFixture[str]) -> None:
    """Permuted modes have the identity's loss."""
    [block] = re.findall(r"```python\n(.*?)```", (ROOT / "docs/translation.md").read_text(), re.S)
    exec(compile(block, "docs/translation.md", "exec"), {})
    identity, permuted = map(float, capsys.readouterr().out.split())
    assert identity == pytest.approx(permuted, abs=2e-4)


def test_the_page_on_posteriors(capsys: pytest.CaptureFixture[str]) -> None:
    """Blocks are read one after the other: the second takes up what the first defines."""
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs/posteriors.md").read_text(), re.S):
        exec(compile(re.sub(r"num_steps=\d+", "num_steps=20", block), "docs/posteriors.md", "exec"), names)
    assert "Calibration(worst of 2: " in capsys.readouterr().out


def test_the_page_on_topics(capsys: pytest.CaptureFixture[str]) -> None:
    [block] = re.findall(r"```python\n(.*?)```", (ROOT / "docs/topics.md").read_text(), re.S)
    exec(compile(block, "docs/topics.md", "exec"), {})
    topics = [set(words) for words in map(ast.literal_eval, capsys.readouterr().out.splitlines())]
    assert {"stocks", "bonds"} in [topic & {"stocks", "bonds", "cat"} for topic in topics]


@pytest.mark.slow
def test_the_page_on_likelihood(capsys: pytest.CaptureFixture[str]) -> None:
    [block] = re.findall(r"```python\n(.*?)```", (ROOT / "docs/likelihood.md").read_text(), re.S)
    exec(compile(block, "docs/likelihood.md", "exec"), {})
    exact, found, gap = map(float, capsys.readouterr().out.split())
    assert found == pytest.approx(exact, abs=0.2)
    assert gap < 0.3


def test_the_page_on_samples(capsys: pytest.CaptureFixture[str]) -> None:
    """Blocks are read one after the other; copies pass all but one test, and kernels put the worse model first."""
    names: dict[str, object] = {}
    with warnings.catch_warnings():
        for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs/samples.md").read_text(), re.S):
            exec(compile(block, "docs/samples.md", "exec"), names)
    true, narrow, copies, *kernels = (
        list(map(float, re.findall(r"-?\d[\d.]*(?:e-?\d+)?", line))) for line in capsys.readouterr().out.splitlines()
    )
    assert min(true[5], true[7], copies[5]) > 0.01
    assert max(narrow[5], copies[7]) < 1e-6
    assert narrow[2] > 1.2 > 0.9 > narrow[3]
    assert kernels[0][1] > kernels[1][1]
    assert kernels[0][2] < kernels[1][2]


def test_the_page_on_report_cards(capsys: pytest.CaptureFixture[str]) -> None:
    """A normal model makes no data as skew as exponential ones."""
    [block] = re.findall(r"```python\n(.*?)```", (ROOT / "docs/report_card.md").read_text(), re.S)
    exec(compile(block, "docs/report_card.md", "exec"), {})
    name, *found = capsys.readouterr().out.replace("tensor(", "").replace(", dtype=torch.float64)", "").split()
    observed, replicated, p_value, stderr = map(float, found)
    assert name == "skewness"
    assert observed > 1 > replicated
    assert p_value == pytest.approx(0.5 / 201)
    assert stderr == pytest.approx(0.5 / 201, rel=0.01)


@pytest.mark.slow
def test_the_page_on_representations(capsys: pytest.CaptureFixture[str]) -> None:
    [block] = re.findall(r"```python\n(.*?)```", (ROOT / "docs/representation.md").read_text(), re.S)
    exec(compile(block, "docs/representation.md", "exec"), {})
    active, right = capsys.readouterr().out.split()
    assert 4 <= int(active) <= 16
    assert float(right) > 0.8


def test_the_page_on_outliers(capsys: pytest.CaptureFixture[str]) -> None:
    """The commands, with a small model and few steps."""
    page = (ROOT / "docs/outliers.md").read_text()
    [block] = re.findall(r"```python\n(.*?)```", page, re.S)
    exec(compile(block, "docs/outliers.md", "exec"), {})
    for command in re.findall(r"^pyrogen (.*)", page, re.M):
        assert main(re.sub(r"pixelcnn-pp .* --steps \d+", "made --hidden [8] --steps 2", command).split()) == 0
    assert "taken as outliers: all 180 data of halves" in capsys.readouterr().out
    assert Path("scores.csv").read_text().startswith("set,row,likelihood,ratio,typicality,waic\n")


@pytest.mark.slow
def test_the_page_on_missing_values(capsys: pytest.CaptureFixture[str]) -> None:
    [block] = re.findall(r"```python\n(.*?)```", (ROOT / "docs/missing.md").read_text(), re.S)
    exec(compile(block, "docs/missing.md", "exec"), {})
    imputed, of_columns = map(float, capsys.readouterr().out.split())
    assert imputed < 0.5 * of_columns


def test_the_page_on_semi_supervised_learning(capsys: pytest.CaptureFixture[str]) -> None:
    """Blocks are read one after the other: the second takes up what the first defines."""
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs/semi_supervised.md").read_text(), re.S):
        exec(compile(block.replace("num_steps=800", "num_steps=60"), "docs/semi_supervised.md", "exec"), names)
    accuracy, described = capsys.readouterr().out.splitlines()
    assert accuracy.startswith("Estimate(")
    assert "50 labels known" in described


def test_the_page_on_uncertainty(capsys: pytest.CaptureFixture[str]) -> None:
    """What overlaps is chance, and what was not seen is the parameters."""
    [block] = re.findall(r"```python\n(.*?)```", (ROOT / "docs/uncertainty.md").read_text(), re.S)
    exec(compile(block, "docs/uncertainty.md", "exec"), {})
    between, far, unseen = (
        list(map(float, re.findall(r"\d\.\d+", line))) for line in capsys.readouterr().out.splitlines()
    )
    assert between[1] > 0.65 > 0.05 > between[2]
    assert far[0] < 0.1
    assert unseen[0] > 0.65
    assert unseen[2] > 0.4


def test_the_page_on_text(capsys: pytest.CaptureFixture[str]) -> None:
    [block] = re.findall(r"```python\n(.*?)```", (ROOT / "docs/text.md").read_text(), re.S)
    exec(compile(block, "docs/text.md", "exec"), {})
    figure, written = capsys.readouterr().out.splitlines()
    assert figure.startswith("Estimate(")
    assert written.startswith("the cat")


def test_the_page_on_autoregressive_models(capsys: pytest.CaptureFixture[str]) -> None:
    """Blocks are read one after the other: the second takes up what the first defines."""
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs/autoregressive.md").read_text(), re.S):
        exec(compile(block, "docs/autoregressive.md", "exec"), names)
    shapes, passes, stays = capsys.readouterr().out.splitlines()
    assert shapes == "torch.Size([16, 1, 8, 8]) torch.Size([16])"
    assert int(passes.split()[0]) < 64
    assert stays == "True"


@pytest.mark.slow
def test_the_page_on_control(capsys: pytest.CaptureFixture[str]) -> None:
    """The policy learned is below the best, and the best below the log-evidence, in each room; arms are a softmax."""
    names: dict[str, object] = {}
    said = {}
    for section in re.split(r"^##? ", (ROOT / "docs/control.md").read_text(), flags=re.M):
        for block in re.findall(r"```python\n(.*?)```", section, re.S):
            exec(compile(block, "docs/control.md", "exec"), names)
            title = section.partition("\n")[0]
            said[title] = said.get(title, "") + capsys.readouterr().out
    lines = said["Control as inference"].splitlines()
    rooms = list(zip(*(map(float, line.split()) for line in lines), strict=True))
    assert all(best - 0.1 < found <= best < evidence for found, best, evidence in rooms)
    within_a_region = map(float, said["A trust region"].split())
    assert all(best - 0.1 < value <= best for value, (_, best, _) in zip(within_a_region, rooms, strict=True))
    assert "256 Episode(num_environment_steps=" in said["Environments of gymnasium"]
    assert said["Recordings and replays"] == "torch.Size([1, 256, 4]) 1032\n"  # 1000 to warm up, and 4 in each of 8
    soft = said["From transitions of the past"].splitlines()
    learned, best, fitted = (list(map(float, re.findall(r"\d\.\d+", line))) for line in soft)
    assert learned == pytest.approx(best, abs=0.1)
    assert fitted == pytest.approx(best, abs=0.1)
    arms = [float(number) for number in re.findall(r"\d\.\d+", said["An environment of your own"])]
    assert arms == pytest.approx([0.0900, 0.2447, 0.6652], abs=0.05)  # the softmax of 0, 1 and 2


def test_the_page_on_planning(capsys: pytest.CaptureFixture[str]) -> None:
    """Blocks are read one after the other: carts are pushed back, and planning and particles come to what is exact."""
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs/planning.md").read_text(), re.S):
        exec(compile(block, "docs/planning.md", "exec"), names)
    mppi, cem, lucky, sober, evidence = (
        list(map(float, re.findall(r"-?\d\.\d+", line))) for line in capsys.readouterr().out.splitlines()
    )
    assert max(mppi[0], cem[0]) < 0 < min(mppi[1], cem[1])
    assert lucky[0] == pytest.approx(lucky[1], abs=0.03)
    assert sober[0] == pytest.approx(sober[1], abs=0.03)
    assert abs(lucky[1] - sober[1]) > 0.04
    assert evidence[0] == pytest.approx(evidence[1], abs=0.06)
    assert evidence[1] > evidence[2] + 0.15


@pytest.mark.slow
def test_readme_commands(capsys: pytest.CaptureFixture[str]) -> None:
    commands = re.findall(r"^pyrogen (.*)", README, re.M)
    assert len(commands) >= 5
    for command in commands:
        assert main(re.sub(r"--epochs \d+", "--epochs 1", command).split()) == 0
        assert capsys.readouterr().out


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example(example: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", [str(example), "--steps", "3"])
    runpy.run_path(str(example), run_name="__main__")
    assert capsys.readouterr().out


def test_own_model_stays_short() -> None:
    """The example of an own model, own guide and ELBO keeps to a dozen statements of modelling."""
    source = (ROOT / "examples/own_model.py").read_text()
    modelling = source[source.index("class Model") : source.index("def main")]
    lines = [line.strip() for line in modelling.splitlines()]
    statements = [line for line in lines if line and not line.startswith(("class ", "def ", "super()"))]
    assert len(statements) <= 12, statements
