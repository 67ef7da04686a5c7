"""Ten small models after public architectures, with an input each, of PyTorch's own layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softmax
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

LENGTHS = torch.tensor([3, 6, 5])


class Tagger(nn.Module):
    """A bidirectional LSTM over packed words (Huang, Xu and Yu, 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 4)
        self.lstm = nn.LSTM(4, 3, batch_first=True, bidirectional=True)
        self.tag = nn.Linear(6, 5)

    def forward(self, words: Tensor) -> Tensor:
        sequence = pack_padded_sequence(self.embed(words), LENGTHS, True, enforce_sorted=False)
        output, _ = pad_packed_sequence(self.lstm(sequence)[0], batch_first=True)
        return self.tag(output)


class Translator(nn.Module):
    """Encoder, decoder and attention between them (Bahdanau, Cho and Bengio, 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 4)
        self.encoder = nn.GRU(4, 3, bidirectional=True, batch_first=True)
        self.decoder = nn.GRU(10, 6, batch_first=True)
        self.score = nn.Linear(6, 6)
        self.word = nn.Linear(6, 9)

    def forward(self, words: Tensor) -> Tensor:
        memory, last = self.encoder(self.embed(words))
        state = torch.cat([last[0], last[1]], dim=-1).unsqueeze(0)
        said, given = [], self.embed(words[:, :1])
        for t in range(4):
            weights = softmax(memory @ self.score(state[0]).unsqueeze(2), dim=1)
            context = (weights * memory).sum(1, keepdim=True)
            output, state = self.decoder(torch.cat([given, context], dim=-1), state)
            said.append(self.word(output))
            given = self.embed(words[:, t : t + 1])
        return torch.cat(said, dim=1)


class Speech(nn.Module):
    """Convolutions, then packed bidirectional GRUs with normalisation (Amodei et al., 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 5, 3, padding=1)
        self.rnns = nn.ModuleList(
            [nn.GRU(size, 4, bidirectional=True, bias=False) for size in (5, 4)]
        )
        self.norm = nn.BatchNorm1d(4)
        self.out = nn.Linear(4, 6)

    def forward(self, sound: Tensor) -> Tensor:
        x = torch.relu(self.conv(sound)).permute(2, 0, 1)
        for i, rnn in enumerate(self.rnns):
            if i:
                x = self.norm(x.permute(1, 2, 0)).permute(2, 0, 1)
            packed, _ = rnn(pack_padded_sequence(x, LENGTHS, enforce_sorted=False))
            both = pad_packed_sequence(packed)[0]
            x = both[..., :4] + both[..., 4:]
        return self.out(x)


class ActorCritic(nn.Module):
    """A recurrent policy whose lanes begin anew within a rollout (Mnih et al., 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 5)
        self.actor, self.critic = nn.Linear(5, 3), nn.Linear(5, 1)

    def forward(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        begins = torch.zeros(6, 3, 1, dtype=seen.dtype)
        begins[2, 0] = begins[4, 1] = 1
        state = (seen.new_zeros(1, 3, 5), seen.new_zeros(1, 3, 5))
        outputs = []
        for x, begin in zip(seen, begins, strict=True):
            state = (state[0] * (1 - begin), state[1] * (1 - begin))
            output, state = self.lstm(x.unsqueeze(0), state)
            outputs.append(output)
        features = torch.cat(outputs)
        return self.actor(features), self.critic(features)


class LanguageModel(nn.Module):
    """Two LSTM layers, tied embedding, state carried on (Zaremba, Sutskever and Vinyals, 2014)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 4)
        self.lstm = nn.LSTM(4, 4, num_layers=2, dropout=0.3)
        self.word = nn.Linear(4, 9)
        self.word.weight = self.embed.weight

    def forward(self, words: Tensor) -> Tensor:
        first, state = self.lstm(self.embed(words[:3]))
        second, _ = self.lstm(self.embed(words[3:]), (state[0].detach(), state[1].detach()))
        return self.word(torch.cat([first, second]))


class Names(nn.Module):
    """A plain recurrent network reads letters and classifies from its last state (Elman, 1990)."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(4, 5, nonlinearity="relu")
        self.out = nn.Linear(5, 3)

    def forward(self, letters: Tensor) -> Tensor:
        return self.out(self.rnn(letters)[1][0]).relu_()


class Documents(nn.Module):
    """Words to sentences to documents, attention at both levels (Yang et al., 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.GRU(4, 3, bidirectional=True, batch_first=True)
        self.sentences = nn.GRU(6, 3, bidirectional=True, batch_first=True)
        self.attend = nn.Linear(6, 1)

    def pooled(self, x: Tensor) -> Tensor:
        return (softmax(self.attend(torch.tanh(x)), dim=1) * x).sum(1)

    def forward(self, documents: Tensor) -> Tensor:
        lanes, sentences = documents.shape[:2]
        vectors = self.pooled(self.words(documents.flatten(0, 1))[0])
        return self.pooled(self.sentences(vectors.view(lanes, sentences, 6))[0])


class Autoencoder(nn.Module):
    """A sequence through one vector and back, with projected LSTMs (Srivastava et al., 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.LSTM(4, 6, proj_size=3)
        self.decoder = nn.LSTM(3, 6, proj_size=3)
        self.out = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        _, state = self.encoder(x)
        repeated = state[0].expand(len(x), -1, -1)
        return self.out(self.decoder(repeated, state)[0].flip(0))


class Reader(nn.Module):
    """Text in pictures: convolutions, then bidirectional LSTMs over columns (Shi et al., 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d((2, 1)))
        self.lstm = nn.LSTM(4, 3, num_layers=2, bidirectional=True)
        self.out = nn.Linear(6, 5)

    def forward(self, picture: Tensor) -> Tensor:
        columns = self.conv(picture).flatten(1, 2).permute(2, 0, 1)
        return self.out(self.lstm(columns)[0]).log_softmax(-1)


class Alike(nn.Module):
    """One LSTM reads both sentences, a shared layer (Mueller and Thyagarajan, 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.LSTM(4, 5, batch_first=True)
        self.right = self.left

    def forward(self, pair: Tensor) -> Tensor:
        one, other = self.left(pair[0])[1][0][0], self.right(pair[1])[1][0][0]
        return torch.exp(-(one - other).abs().sum(-1))


def _words(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randint(0, 9, shape)


def _numbers(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(shape, dtype=torch.float64)


# The model, its input, and how many layers there are to replace.
MODELS: list[tuple[type[nn.Module], Callable[[], Any], int]] = [
    (Tagger, _words(3, 6), 1),
    (Translator, _words(3, 6), 2),
    (Speech, _numbers(3, 4, 6), 2),
    (ActorCritic, _numbers(6, 3, 4), 1),
    (LanguageModel, _words(6, 3), 1),
    (Names, _numbers(6, 3, 4), 1),
    (Documents, _numbers(3, 2, 6, 4), 2),
    (Autoencoder, _numbers(6, 3, 4), 2),
    (Reader, _numbers(3, 1, 4, 6), 1),
    (Alike, _numbers(2, 3, 6, 4), 1),
]
