"""Policies from the command line: train, resume, evaluate, report, compare, and what is refused."""

import json
import random
import re
import shlex
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch

from pyrogen import catalogue, control_recipe, fitting
from pyrogen.cli import main
from pyrogen.control_arguments import parse_training
from pyrogen.control_recipe import ControlRecipe
from pyrogen.control_settings import ControlSettings, Pace, learned_from
from pyrogen.data import GymnasiumEnvironment, Normalized, Rollouts
from pyrogen.errors import ProgramError, UsageError
from pyrogen.inferencedata import read_netcdf
from pyrogen.models import OptimalTrajectories, UniformBox
from pyrogen.policy_comparison import pooled_returns
from pyrogen.policy_evaluation import EVALUATION_SEED, stage_of
from pyrogen.policy_fit import VALIDATION_SEED, PolicyFit
from pyrogen.recipe import Named, Programs
from pyrogen.runs import Run

TINY = ["--hidden", "[8]", "--critic-hidden", "[8]", "--evaluation-episodes", "2", "--device", "cpu"]
OFTEN = ["--evaluate-every", "40", "--log-every", "8", "--compile", "off"]
CARTPOLE = ["policy", "--env", "CartPole-v1", *TINY, *OFTEN, "--num-environments", "4", "--recording-steps", "8"]
SCALED = ["--minibatches", "2", "--uses", "2", "--normalize-observations", "true", "--normalize-rewards", "true"]
PPO = [*CARTPOLE, "--objective", "ppo", *SCALED, "--steps", "256"]
SHORT = ["--env-settings", '{"max_episode_steps": 20}']
SAC = ["policy", "--env", "Pendulum-v1", *SHORT, "--objective", "sac", *TINY, "--steps", "100", "--warmup", "60"]
SAC += ["--exploration", "state-dependent", "--noise-steps", "7"]
SAC += ["--compile", "off", "--batch-size", "8", "--evaluate-every", "10", "--log-every", "5"]
SOFT_Q = ["policy", "--env", "CartPole-v1", "--objective", "soft-q", "--device", "cpu", "--compile", "off"]

GROUPS = ControlRecipe(
    *(Named("policy", {"hidden": (8,)}), Named("ppo", {"critic_hidden": (8,)}), Named("CartPole-v1")),
    training=ControlSettings(steps=64, num_environments=4, recording_steps=4, uses=2, minibatches=2),
)


def pyrogen(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def trained(folder: Path, *arguments: str) -> Path:
    assert main(["train", *arguments, "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("runs") / "ppo", *PPO)


@pytest.fixture(scope="module")
def of_boxes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("runs") / "sac", *SAC)


def test_metrics_tell_how_it_went(run: Path) -> None:
    rows = Run.open(run).metrics()
    named = {name for row in rows for name in row}
    assert {"environment_steps", "training_return", "training_length", "entropy", "kl_to_prior"} <= named
    assert max(row.get("environment_steps", 0) for row in rows) == 256  # --steps are of the environments
    scores = {row["step"]: row["validation_mean_return"] for row in rows if "validation_mean_return" in row}
    assert list(scores) == [5, 10, 15, 20, 25, 30, 32]
    assert scores[Run.open(run).chosen()] == max(scores.values())
    # With two choices and a uniform prior, entropy and divergence are log 2 together, in every state.
    assert all(abs(row["entropy"] + row["kl_to_prior"] - 0.6931) < 1e-3 for row in rows if "entropy" in row)


def test_steps_are_of_environments(of_boxes: Path) -> None:
    """The warm-up counts, and each round of transitions takes one step."""
    assert Run.open(of_boxes).metrics()[-1]["environment_steps"] == 100
    assert Run.open(of_boxes).checkpoints()[-1] == 40


@pytest.mark.parametrize("pace", [Pace(8, 16, 4, 0), Pace(3, 1, 2, 20), Pace(4, 5, 1, 7)])
def test_steps_are_never_exceeded(pace: Pace) -> None:
    """Nor is room for another recording left; the mutant, which counts rounds, began one more than fits."""
    recorded, warmup = pace.num_environments * pace.recording_steps, -(-pace.warmup // pace.num_environments)
    for steps in (150, 1000, 1023, 1024):
        rounds = pace.num_rounds(steps)
        taken = warmup * pace.num_environments + -(-rounds // pace.rounds) * recorded
        assert taken <= steps < taken + recorded
    assert -(-pace_by_rounds(1000) // 4) * 8 * 16 == 1024


def pace_by_rounds(steps: int) -> int:
    """Count rounds of 8 environments, 16 steps and 4 uses, whether or not the last have a recording."""
    return steps * 4 // (8 * 16)


def test_evaluation(capsys: pytest.CaptureFixture[str], run: Path) -> None:
    words = ["evaluate", str(run), "--episodes", "5", "--deterministic", "true", "--json"]
    code, out, err = pyrogen(capsys, *words)
    metrics = json.loads(out)["metrics"]
    assert code == 0
    assert "no elbo: the policy was fitted to rewards on another scale" in err
    drawn = {"mean_return", "iqm_return", "episode_length"}
    # Rewards were scaled for training, so that no ELBO is of what was fitted.
    assert set(metrics) == drawn | {"entropy", "kl_to_prior"} | {f"{name}_deterministic" for name in drawn}
    assert metrics["mean_return"]["unit"] == "reward"
    assert metrics["mean_return"]["stderr"] > 0
    low, high = metrics["iqm_return"]["interval"]
    assert low <= metrics["iqm_return"]["value"] <= high
    assert pyrogen(capsys, *words)[1] == out  # it is repeatable
    code, out, _ = pyrogen(capsys, "evaluate", str(run), "--episodes", "2")
    assert "95% interval" in out
    assert "95% interval" not in pyrogen(capsys, "evaluate", str(run), "--episodes", "1")[1]


def test_an_elbo_is_what_divergences_leave(capsys: pytest.CaptureFixture[str], of_boxes: Path, tmp_path: Path) -> None:
    shutil.copytree(of_boxes, run := tmp_path / "run", symlinks=True)
    _, out, err = pyrogen(capsys, "evaluate", str(run), "--episodes", "3", "--json")
    metrics = json.loads(out)["metrics"]
    assert "no elbo" not in err
    lost = metrics["kl_to_prior"]["value"] * metrics["episode_length"]["value"]
    assert metrics["elbo"]["value"] == pytest.approx(metrics["mean_return"]["value"] - lost, rel=1e-4)


@pytest.mark.parametrize("seed", [0, 1_000_000, 2_000_000])
def test_no_episode_of_training_is_one_of_evaluation(seed: int) -> None:
    recipe = ControlRecipe(Named("policy"), Named("ppo"), Named("CartPole-v1"), ControlSettings(), seed)
    starts = [recipe.copies(4, s).reset() for s in (seed, VALIDATION_SEED, EVALUATION_SEED, EVALUATION_SEED + seed + 1)]
    assert len(torch.cat(starts).unique(dim=0)) == 16


def test_a_missing_run_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = pyrogen(capsys, "evaluate", str(tmp_path / "gone"), "--deterministic", "true")
    assert code == 66
    assert "there is no run at" in err


def test_evaluation_is_on_the_scale_of_training(run: Path) -> None:
    """Observations are shifted and scaled as the policy is used to; the mutant, a new scale, is another."""
    opened = Run.open(run)
    recipe = ControlRecipe.from_json(opened.manifest)
    stage = stage_of(opened, recipe, 2, 7)
    saved = opened.restore(opened.chosen()).tree["training"]["feed"]["batches"]["recorder"]["environment"]
    assert isinstance(stage, Normalized)
    mean, variance = saved["observations"]["mean"], saved["observations"]["variance"]
    raw = GymnasiumEnvironment("CartPole-v1", 2, 7).reset()
    expected = (raw - mean) / variance.sqrt()
    assert torch.allclose(stage.reset(), expected.float(), atol=1e-5)
    anew = Normalized(GymnasiumEnvironment("CartPole-v1", 2, 7)).reset()
    assert not torch.allclose(expected, anew.double(), atol=0.1)
    assert torch.equal(stage.step(torch.tensor([0, 1])).reward, torch.ones(2))  # and rewards are as they are


def test_report(capsys: pytest.CaptureFixture[str], run: Path) -> None:
    pyrogen(capsys, "evaluate", str(run), "--episodes", "5")
    assert pyrogen(capsys, "report", str(run))[0] == 0
    page = (run / "report.html").read_text()
    assert not re.search(r"""(src|href|srcset)=["'](?!data:|#)""", page)
    for text in ("iqm_return", "Learning curve", "Entropy and divergence", "pyrogen train policy", "An episode of"):
        assert text in page
    assert "Figures of 5 episodes from seed 0" in page
    assert "256 environment steps in 32 rounds." in page
    pictures = {path.stem for path in run.glob("*.png")}
    assert {"returns_curve", "divergence", "returns", "actions", "episode", "loss", "critic"} <= pictures
    posterior = read_netcdf(run / "posterior.nc")
    assert posterior["posterior"]["action"].dims == ("chain", "draw", "time", "environments")
    assert posterior["constant_data"]["observation"].shape[2] == 4


def test_what_cannot_be_drawn_is_said(
    capsys: pytest.CaptureFixture[str], of_boxes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(self: Any) -> None:
        raise RuntimeError("there is no screen")

    monkeypatch.setattr(GymnasiumEnvironment, "render", nothing)
    assert pyrogen(capsys, "report", str(of_boxes))[0] == 0
    page = (of_boxes / "report.html").read_text()
    assert "Pendulum-v1 could not be drawn: there is no screen." in page
    assert "None yet: run `pyrogen evaluate" in page
    assert (of_boxes / "actions.png").exists()


class Killed(BaseException):
    """What no handler takes, as a signal that kills."""


def assert_same(one: Path, other: Path) -> None:
    """Bit for bit: every metric, every parameter, every transition, every state of the last checkpoint."""
    assert (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
    last = f"checkpoint-{Run.open(one).checkpoints()[-1]:08d}"
    states = [(path / last / "state.safetensors").read_bytes() for path in (one, other)]
    assert states[0] == states[1]


def check_killed(
    uninterrupted: Path, killed_at: int, out: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on from the latest checkpoint."""
    log = fitting.Driver._log

    def killed(self: Any, now: Any, bar: Any) -> None:
        if now.index >= killed_at:
            raise Killed
        log(self, now, bar)

    monkeypatch.setattr(fitting.Driver, "_log", killed)
    with pytest.raises(Killed):
        main(["train", *arguments, "--out", str(out)])
    monkeypatch.setattr(fitting.Driver, "_log", log)
    assert main(["resume", str(out)]) == 0
    assert_same(uninterrupted, out)


# Of four rounds by a recording, a checkpoint at 5 is within the first use, at 10 between both, at 15 within the second.
@pytest.mark.parametrize("killed_at", [6, 12, 17, random.Random(0).randrange(20, 32)])
def test_killed_and_resumed_is_the_same(
    run: Path, tmp_path: Path, killed_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_killed(run, killed_at, tmp_path / "killed", PPO, monkeypatch)


@pytest.mark.parametrize("killed_at", [random.Random(0).randrange(11, 40)])
def test_killed_and_resumed_with_a_replay(
    of_boxes: Path, tmp_path: Path, killed_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_killed(of_boxes, killed_at, tmp_path / "killed", SAC, monkeypatch)


def test_mutant_groups_forgotten(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a recording is parted anew in the middle of a use, some steps are learned from twice."""
    state = Rollouts.state_dict
    monkeypatch.setattr(Rollouts, "state_dict", lambda self: state(self) | {"groups": []})
    with pytest.raises(AssertionError):
        check_killed(run, 6, tmp_path / "killed", PPO, monkeypatch)


def test_mutant_targets_forgotten(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A use that goes on by other targets, here zeros, takes other steps."""
    state = Rollouts.state_dict

    def forgetting(self: Rollouts) -> dict[str, Any]:
        return state(self) | {"found": {name: torch.zeros_like(column) for name, column in self.found.items()}}

    monkeypatch.setattr(Rollouts, "state_dict", forgetting)
    with pytest.raises(AssertionError):
        check_killed(run, 6, tmp_path / "killed", PPO, monkeypatch)


def test_killed_before_the_first_checkpoint(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was logged by then is not there twice."""
    save = fitting.Driver._save

    def killed(self: Any, is_best: bool) -> None:
        raise Killed

    monkeypatch.setattr(fitting.Driver, "_save", killed)
    with pytest.raises(Killed):
        main(["train", *PPO, "--out", str(tmp_path / "killed")])
    monkeypatch.setattr(fitting.Driver, "_save", save)
    assert Run.open(tmp_path / "killed").metrics()
    assert main(["resume", str(tmp_path / "killed")]) == 0
    assert_same(run, tmp_path / "killed")


def test_an_interrupt_saves(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = fitting.Driver._log

    def interrupted(self: Any, now: Any, bar: Any) -> None:
        log(self, now, bar)
        if now.index == 7:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(fitting.Driver, "_log", interrupted)
    code, _, err = pyrogen(capsys, "train", *PPO, "--out", str(tmp_path / "stopped"))
    monkeypatch.setattr(fitting.Driver, "_log", log)
    assert code == 130
    assert "pyrogen resume" in err
    assert Run.open(tmp_path / "stopped").checkpoints()[-1] == 7
    assert main(["resume", str(tmp_path / "stopped")]) == 0
    assert_same(run, tmp_path / "stopped")


def test_resuming_without_the_scale_differs(run: Path, tmp_path: Path) -> None:
    """The mutant: where what observations were scaled by is forgotten, the same figures do not come again."""
    shutil.copytree(run, out := tmp_path / "forgetful", symlinks=True)
    opened = Run.open(out)
    with opened.writing():
        checkpoint = opened.restore(opened.checkpoints()[0])
        opened.rewind(checkpoint)
        checkpoint.tree["training"]["feed"]["batches"]["recorder"]["environment"]["observations"]["mean"] *= 0
        opened.save(checkpoint.step, checkpoint.tree)
    assert main(["resume", str(out)]) == 0
    with pytest.raises(AssertionError):
        assert_same(run, out)


def test_what_cannot_be_played_is_refused_before_training() -> None:
    """And not in the first validation. Whether something was played then leaves no trace in what is learned."""
    recipe = replace(GROUPS, training=replace(GROUPS.training, deterministic=True))
    losses = []
    for tried in (False, True):
        fit = PolicyFit.begun(recipe)
        training = fit.driven()[0] if tried else fit.recipe.fit(fit.environment, fit.programs)
        losses.append([float(step.loss) for step in training])
    assert losses[0] == losses[1]
    without_mode = Programs(OptimalTrajectories(UniformBox(1)), UniformBox(1))
    with pytest.raises(UsageError, match="actions of Uniform have no mode"):
        fit._replace(programs=without_mode).driven()


def test_environments_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that were opened to look at, to learn in, to validate, to evaluate and to report."""
    opened: list[Any] = []
    make, closed = gymnasium.make, []

    def counted(*arguments: Any, **settings: Any) -> Any:
        env = make(*arguments, **settings)
        monkeypatch.setattr(env, "close", lambda close=env.close: (closed.append(env), close()))
        opened.append(env)
        return env

    monkeypatch.setattr(gymnasium, "make", counted)
    out = str(tmp_path / "run")
    for command in (
        ["train", *PPO, "--steps", "32", "--out", out],
        ["evaluate", out, "--episodes", "3"],
        ["report", out],
    ):
        before = len(opened)
        assert main(command) == 0
        assert len(opened) > before + 3
        assert {id(env) for env in opened} == {id(env) for env in closed}


def test_another_environment_is_refused(run: Path) -> None:
    manifest = Run.open(run).manifest
    other = manifest | {"spec": manifest["spec"] | {"num_actions": 3}}
    with pytest.raises(ProgramError, match="is not the environment that the run was fitted in"):
        PolicyFit.resumed(ControlRecipe.from_json(manifest), other)


def test_the_command_makes_the_run_again(run: Path) -> None:
    recipe = ControlRecipe.from_json(Run.open(run).manifest)
    words = shlex.split(recipe.command(Path("again")))
    assert words[:3] == ["pyrogen", "train", "policy"]
    assert parse_training(words[2:])[0] == recipe
    tilted = ["policy", "--env", "Pendulum-v1", "--objective", "sac", "--env-settings", '{"g": 5.0, "name": "a b"}']
    recipe = parse_training(tilted)[0]
    assert recipe.env.settings == {"g": 5.0, "name": "a b"}
    assert parse_training(shlex.split(recipe.command(Path("again")))[2:])[0] == recipe


def test_a_file_of_settings(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("model: policy\nenv: Pendulum-v1\nobjective: sac\nenv_settings: {g: 5.0}\nhidden: [8]\nuses: 2\n")
    recipe, _ = parse_training(["--config", str(file), "--uses", "3"])
    assert (recipe.env.name, recipe.env.settings, recipe.objective.name) == ("Pendulum-v1", {"g": 5.0}, "sac")
    assert (recipe.model.settings["hidden"], recipe.training.uses) == ([8], 3)


def test_objectives_have_their_usual_pace(capsys: pytest.CaptureFixture[str]) -> None:
    """What an objective prefers of training is said, and yields to what is set."""
    recipe, options = parse_training(["policy", "--env", "CartPole-v1"])
    assert recipe.objective.name == "kl-control"
    assert (recipe.training.recording_steps, recipe.training.critic_steps) == (8, 8)
    assert "learns from each recording once, after a critic that has seen it" in options["note"]
    assert "chose --temperature 0.1" in options["note"]
    recipe, _ = parse_training(["policy", "--env", "CartPole-v1", "--objective", "ppo", "--uses", "3"])
    assert (recipe.training.uses, recipe.training.minibatches) == (3, 4)


def check_groups(recipe: ControlRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """All steps of a round are with the same group of steps, and the next round's is the other."""
    environment = recipe.environment()
    training = recipe.fit(environment, recipe.programs(environment.spec))
    drawn, draw = [], training.feed.draw

    def noting(*arguments: Any) -> Any:
        batch = draw(*arguments)
        drawn.append(batch[1]["observation"])
        return batch

    monkeypatch.setattr(training.feed, "draw", noting)
    steps = 1 + recipe.training.critic_steps
    for first, second in zip(training, training, strict=True):
        assert (first.index + 1, len(drawn)) == (second.index, second.index * steps)
    for number in range(0, len(drawn), 2 * steps):
        one, other = drawn[number : number + steps], drawn[number + steps : number + 2 * steps]
        assert all(torch.equal(batch, group[0]) for group in (one, other) for batch in group)
        assert (one[0][:, :, None] != other[0][:, None]).any(-1).all()


@pytest.mark.parametrize("critic_steps", [1, 3])
def test_all_players_learn_from_all_groups(critic_steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    check_groups(replace(GROUPS, training=replace(GROUPS.training, critic_steps=critic_steps)), monkeypatch)


def test_mutant_players_that_share_the_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    def shared(*arguments: Any, uses: int, players: int, **settings: Any) -> Rollouts:
        return Rollouts(*arguments, uses=uses * players, **settings)

    monkeypatch.setattr(control_recipe, "Rollouts", shared)
    with pytest.raises(AssertionError):
        check_groups(GROUPS, monkeypatch)


@pytest.mark.parametrize("critic_steps", [1, 3])
def test_all_steps_with_a_recording_are_with_the_same(critic_steps: int) -> None:
    """Each round is one recording, however many steps the critic takes with it."""
    settings = ControlSettings(steps=64, num_environments=2, recording_steps=4, critic_steps=critic_steps)
    parts = Named("policy", {"hidden": (8,)}), Named("kl-control", {"critic_hidden": (8,)}), Named("CartPole-v1")
    recipe = ControlRecipe(*parts, training=settings)
    environment = recipe.environment()
    seen = [environment.num_environment_steps for _ in recipe.fit(environment, recipe.programs(environment.spec))]
    assert seen == list(range(8, 65, 8))


def test_compare(capsys: pytest.CaptureFixture[str], run: Path, of_boxes: Path, tmp_path: Path) -> None:
    """Runs that differ in their seed alone are put together, and others are not."""
    again = trained(tmp_path / "again", *PPO, "--seed", "1")
    folders = [str(run), str(again), str(of_boxes)]
    for folder in folders:
        pyrogen(capsys, "evaluate", folder, "--episodes", "4")
    page = tmp_path / "compare.html"
    code, out, _ = pyrogen(capsys, "compare", *folders[:2], "--out", str(page), "--json")
    [table] = json.loads(out)["rankings"]
    assert code == 0
    [group] = table["groups"]
    assert len(group["runs"]) == 2
    assert group["low"] <= group["value"] <= group["high"]
    assert "Learning curves" in page.read_text()
    code, _, err = pyrogen(capsys, "compare", str(run), str(of_boxes))
    assert code == 2
    assert "fitted to different data" in err
    pyrogen(capsys, "evaluate", str(again), "--episodes", "4", "--seed", "1")
    code, _, err = pyrogen(capsys, "compare", *folders[:2], "--out", str(page))
    assert code == 2
    assert "4 episodes from seed 0, 4 episodes from seed 1" in err
    shutil.copytree(run, copied := tmp_path / "copied", symlinks=True)
    code, _, err = pyrogen(capsys, "compare", str(run), str(copied), "--out", str(page))
    assert code == 2
    assert "the same seed" in err


class Made:
    def __init__(self, seed: int, steps: int) -> None:
        named = {"name": "x", "settings": {}}
        self.manifest = {"model": named, "objective": named, "env": named, "training": {"steps": steps}, "seed": seed}


def test_seeds_are_pooled() -> None:
    runs: Any = {"a": Made(0, 10), "b": Made(1, 10), "c": Made(0, 99)}
    found = pooled_returns(runs, {"a": [0.0, 2.0], "b": [5.0, 5.0], "c": [9.0, 9.0, 9.0]})
    assert found.runs == {"a": ["a", "b"], "c": ["c"]}
    assert found.intervals["a"][:3] == (3.0, 1.0, 5.0)  # of the runs' means, 1 and 5
    assert found.intervals["c"][:3] == (9.0, 9.0, 9.0)
    assert [row[0] for row in found.rows()] == ["c", "a, b"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["policy"], "Give --env ID"),
        (["policy", "--env", "CartPole-v1", "--data", "digits"], "learns in an environment, and not from --data"),
        (["vae", "--env", "CartPole-v1"], "--env names an environment, and vae learns from data"),
        (["policy", "--env", "CartPole-v1", "--objective", "elbo"], "elbo learns from data, and policy acts"),
        (["vae", "--objective", "sac"], "sac learns from what a policy does, and vae learns from data"),
        (["policy", "--env", "some.module:Thing-v0"], "give the id alone"),
        (["policy", "--env", "CartPole-v1", "--seed", "4294967296"], "below 2^32"),
        (["policy", "--env", "CartPole-v9"], "did you mean CartPole-v1"),
        (["policy", "--env", "Pendulum-v1", "--objective", "soft-q"], "soft-q does not go with policy in Pendulum-v1"),
        (["policy", "--env", "CartPole-v1", "--objective", "saac"], "did you mean sac"),
        (["policy", "--env", "CartPole-v1", "--stepz", "3"], "steps"),
        (["policy", "--env", "CartPole-v1", "--steps", "0"], "steps must be at least 1"),
        (
            ["policy", "--env", "Pendulum-v1", "--objective", "sac", "--steps", "900"],
            "end before anything is learned: 1,000 warm up",
        ),
        ([*CARTPOLE, "--steps", "31"], "end before anything is learned: 0 warm up, and 32 are recorded"),
        ([*SAC, "--normalize-observations", "true"], "those of long ago would be on another scale"),
        ([*CARTPOLE, "--uses", "2"], "kl-control learns from a recording once"),
        ([*CARTPOLE, "--minibatches", "4"], "kl-control learns from a recording once"),
        ([*PPO, "--warmup", "9", "--batch-size", "9"], "makes nothing of --batch-size and --warmup: leave them out"),
        ([*PPO, "--minibatches", "3"], "minibatches=3 does not part 32 steps"),
        ([*SAC, "--minibatches", "2"], "sac learns from transitions and makes nothing of --minibatches: leave it out"),
        ([*SOFT_Q, "--critic-steps", "2"], "soft-q learns from transitions, without a critic, and makes nothing of"),
        ([*CARTPOLE, "--track", "paper"], "unknown tracker"),
        (["policy", "--env", "CartPole-v1", "--activation", "step"], "activation"),
        (["policy", "--env", "CartPole-v1", "--exploration", "state-dependent"], "is of actions in a box"),
        (["policy", "--env", "CartPole-v1", "--temperature", "0"], "temperature must be above 0"),
        (["policy", "--env", "CartPole-v1", "--env-settings", '{"gravitas": 1}'], "gravitas"),
    ],
)
def test_usage_errors(capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str], says: str) -> None:
    code, out, err = pyrogen(capsys, "train", *words, "--out", str(tmp_path / "run"))
    said = [line for line in err.splitlines() if line.startswith("pyrogen: ")]
    assert (code, out) == (2, "")
    assert len(said) == 1
    assert says in said[0]
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()


def test_without_gymnasium(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    code, _, err = pyrogen(capsys, "train", *PPO, "--out", str(tmp_path / "run"))
    assert code == 2
    assert "pip install 'pyrogen-ppl[rl]'" in err


@pytest.mark.parametrize("command", ["sample", "complete"])
def test_policies_draw_no_data(capsys: pytest.CaptureFixture[str], run: Path, command: str) -> None:
    code, _, err = pyrogen(capsys, command, str(run))
    assert code == 2
    assert "this run holds a policy" in err


PLUGINS = """
from __future__ import annotations
from typing import TYPE_CHECKING
from pyrogen.inference import KLControl, ELBO
from pyrogen.models import CategoricalPolicy, OptimalTrajectories, UniformChoice
from pyrogen.preference import acts, makes
import torch

if TYPE_CHECKING:
    from pyrogen.environment_spec import EnvironmentSpec

@acts
def blind(spec: EnvironmentSpec, *, bias: float = 0.0):
    network = torch.nn.Linear(spec.observation_shape[0], spec.num_actions)
    return OptimalTrajectories(UniformChoice(spec.num_actions)), CategoricalPolicy(network)

@makes(KLControl)
def plain(model: Program, guide: Program, example: Batch) -> KLControl:
    return KLControl(torch.nn.Linear(4, 1))

def bound(model: Program, guide: Program, example: Batch) -> ELBO:
    return ELBO()
"""


def installed(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, module: str, entries: str) -> None:
    """Put a package with entry points where Python finds it."""
    (folder / f"{name}-1.0.dist-info").mkdir(parents=True)
    (folder / f"{name}.py").write_text(module)
    (folder / f"{name}-1.0.dist-info" / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (folder / f"{name}-1.0.dist-info" / "entry_points.txt").write_text(entries)
    monkeypatch.syspath_prepend(str(folder))


def test_policies_of_other_packages(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Annotations that only type checkers can read are no hindrance, and a package that is broken none to others."""
    entries = "[pyrogen.models]\nblind = acting_toys:blind\nbroken = broken_toys:x\n"
    entries += "[pyrogen.objectives]\nplain = acting_toys:plain\nbound = acting_toys:bound\nbroken = broken_toys:y\n"
    installed(monkeypatch, tmp_path / "site", "acting_toys", PLUGINS, entries)
    (tmp_path / "site" / "broken_toys.py").write_text("1 / 0")
    how = ["--env", "CartPole-v1", "--steps", "32", "--num-environments", "2", "--recording-steps", "8", "--bias", "1"]
    out = ["--evaluation-episodes", "1", "--compile", "off", "--device", "cpu", "--out", str(tmp_path / "run")]
    assert pyrogen(capsys, "train", "blind", *how, "--objective", "plain", *out)[0] == 0
    code, _, err = pyrogen(capsys, "train", "blind", *how, "--objective", "bound", *out)
    assert code == 2
    assert "for control, kl-control, mpo, plain, ppo, sac, soft-q, virel" in err
    assert "`pyrogen train blind or policy --env ID`" in pyrogen(capsys, "train", "vae", "--objective", "plain")[2]
    code, _, err = pyrogen(capsys, "train", "broken", *how)
    assert code == 2
    assert "model 'broken' of acting-toys cannot be imported: ZeroDivisionError" in err.replace("_", "-")


CORRIDORS = """
import gymnasium

class Corridor(gymnasium.Env):
    observation_space, action_space = gymnasium.spaces.Discrete(5), gymnasium.spaces.Discrete(2)

    def __init__(self, length):
        self.length = length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.steps = 0
        return 0, {}

    def step(self, action):
        self.place, self.steps = max(0, self.place + 2 * int(action) - 1), self.steps + 1
        arrived = self.place == self.length
        return self.place, float(arrived), arrived, self.steps == 9, {}

def corridor(length: int = 4) -> Corridor:
    '''Make a corridor with a reward at its end.'''
    return Corridor(length)
"""


def test_environments_of_other_packages(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installed function makes the copies, with settings; a run names it and is evaluated where it is installed."""
    entries = "[pyrogen.environments]\ncorridor = corridors:corridor\nbroken = broken_walls:x\n"
    installed(monkeypatch, tmp_path / "site", "corridors", CORRIDORS, entries)
    (tmp_path / "site" / "broken_walls.py").write_text("1 / 0")
    run = str(tmp_path / "run")
    how = ["--steps", "64", "--num-environments", "2", "--evaluation-episodes", "1", "--compile", "off"]
    settings = ["--env-settings", '{"length": 1}']
    assert pyrogen(capsys, "train", "policy", "--env", "corridor", *settings, *how, "--out", run)[0] == 0
    _, out, _ = pyrogen(capsys, "evaluate", run, "--episodes", "20", "--json")
    assert json.loads(out)["metrics"]["episode_length"]["value"] < 4  # the end is a step away, and not four
    listed = json.loads(pyrogen(capsys, "list", "--json")[1])["environments"]
    assert listed["corridor"] == "Make a corridor with a reward at its end."
    for words, says in (
        (["--env", "broken"], "environment 'broken' of corridors cannot be imported: ZeroDivisionError"),
        (["--env", "corridors"], "did you mean corridor?"),
        (["--env", "corridor", "--env-settings", '{"height": 2}'], "height"),
    ):
        code, _, err = pyrogen(capsys, "train", "policy", *words, *how, "--out", run, "--overwrite")
        assert code == 2
        assert says in err


def test_objectives_say_what_they_learn_from() -> None:
    kinds = {name: learned_from(catalogue.find("objective", name)) for name in catalogue.names("objective")}
    assert kinds["elbo"] is None
    assert kinds["kl-control"] == kinds["ppo"] == "recordings"
    assert kinds["sac"] == kinds["soft-q"] == "transitions"
