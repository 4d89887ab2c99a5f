"""The CNN+LSTM in PyTorch."""

import numpy as np
import torch
from torch import nn

from .windows import CHANNELS, CLASSES

FEATURES = 128
"""Width of the LSTM, and so of the `features` output."""
KERNEL = 5
"""Steps that a convolution looks at."""
CONVOLUTION_CHANNELS = (64, 128)
CLIP = 6.0
"""Standard deviations: beyond it an input says nothing more, and the range that INT8 must cover stays small."""


class CnnLstm(nn.Module):
    """Two convolutions over time see patterns of a few steps, an LSTM strings them together, its last state is what
    the model knows of a window (`features`), and a linear head reads the direction from it (`prediction`)."""

    def __init__(
        self, mean: np.ndarray, scale: np.ndarray, convolution_channels: tuple[int, int] = CONVOLUTION_CHANNELS
    ) -> None:
        """`mean` and `scale`, [50] each, centre the raw channels and bring them to unit variance."""
        super().__init__()
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32).reshape(1, CHANNELS, 1))
        self.register_buffer("scale", torch.as_tensor(scale, dtype=torch.float32).reshape(1, CHANNELS, 1))
        first, second = convolution_channels
        self.conv0 = nn.Conv1d(CHANNELS, first, KERNEL, padding=KERNEL // 2)
        self.conv1 = nn.Conv1d(first, second, KERNEL, padding=KERNEL // 2)
        self.lstm = nn.LSTM(second, FEATURES, batch_first=True)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(FEATURES, len(CLASSES))

    def forward(self, windows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """From windows [N, 50, 60] to features [N, 128] and logits [N, 3]."""
        x = ((windows - self.mean) * self.scale).clamp(-CLIP, CLIP)
        x = torch.relu(self.conv0(x))
        x = torch.relu(self.conv1(x))
        _, (last, _) = self.lstm(x.transpose(1, 2))
        features = last[0]
        return features, self.head(self.dropout(features))
