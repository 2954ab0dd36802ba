"""Topics whose weight depends on where a story comes from: a topic model with a covariate, in a dozen lines.

Run: python examples/topics_by_country.py [--steps 400]

The correlated topic model of pyrogen is a program; here its weights' mean moves with a covariate, whether a story of
Reuters comes from the United Kingdom. It starts from the topics of LDA, and prints those that British stories have more
of, and less of. Needs the package lda, which carries the stories: pip install 'pyrogen-ppl[topics]'.
"""

import argparse

import pyro
import pyro.distributions as dist
import torch
from torch import nn

from pyrogen import ELBO, train
from pyrogen.data import Batches, reuters
from pyrogen.distributions import log_mean
from pyrogen.inference import CollapsedVB
from pyrogen.models import LDA, CorrelatedTopicModel, MeanField, NormalEncoder
from pyrogen.models.plates import scaled_plate
from pyrogen.nn import BagOfWordsMLP

TOPICS = 10


class ByCountry(CorrelatedTopicModel):
    """Weights are logistic-normal, with a mean of their own for British stories."""

    def __init__(self, num_words, num_topics, num_data):
        super().__init__(num_words, num_topics, num_data)
        self.effect = nn.Parameter(torch.zeros(num_topics))

    def forward(self, x, is_british):
        topics = self.topics()
        with scaled_plate("document", x, 0, self.num_data):
            loc = self.loc + is_british[:, None] * self.effect
            z = pyro.sample("z", dist.MultivariateNormal(loc, scale_tril=self.scale_tril()))
            pyro.sample("x", self.words(z.softmax(-1), topics), obs=x)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=1.0)


def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.01)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args()
    torch.manual_seed(0)
    corpus = reuters(min_documents=3, max_share=0.3, validation=0.0, test=0.0)
    is_british = torch.tensor([float(title.startswith("UK:")) for title in corpus.titles["train"]])
    print(f"{corpus.describe()}; {int(is_british.sum())} stories are British")

    lda = LDA(len(corpus.vocabulary), TOPICS, corpus.num_data("train"))
    topics = MeanField(lda, log_mean)
    whole = Batches({"x": corpus.train["x"]}, corpus.num_data("train"))
    for _ in train(CollapsedVB(forgetting=0.0), lda, topics, whole, sgd, num_steps=min(50, options.steps)):
        pass

    model = ByCountry(len(corpus.vocabulary), TOPICS, corpus.num_data("train"))
    encoder = NormalEncoder(model, BagOfWordsMLP(len(corpus.vocabulary), (64,), 2 * TOPICS))
    encoder.log_concentration.data = topics.concentration.detach().log()
    batches = Batches({"x": corpus.train["x"], "is_british": is_british}, 64)

    def guide(x, is_british):
        pyro.module("encoder", encoder)
        encoder(x)

    for step in train(ELBO(), model, guide, batches, adam, num_steps=options.steps, validate=False):
        if step.index % 100 == 0:
            print(f"step {step.index}: {step.loss.item() / corpus.num_tokens('train'):.3f} nats per word")

    phi = encoder.log_concentration.detach().exp()
    phi = phi / phi.sum(-1, keepdim=True)
    for title, order in (("more", model.effect.argsort(descending=True)), ("less", model.effect.argsort())):
        print(f"British stories have {title} of")
        for k in order[:3].tolist():
            words = " ".join(corpus.vocabulary[word] for word in phi[k].topk(8).indices.tolist())
            print(f"  {model.effect[k].item():+.2f}  {words}")


if __name__ == "__main__":
    main()
