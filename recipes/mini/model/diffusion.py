"""What the base model learns, and how it samples: v-prediction on the host's discrete schedule."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .session import DEVICE
from .text import encode_text, tokenise

Velocity = Callable[[Tensor, Tensor], Tensor]

PEOPLE_WEIGHT = 2.0
"""Of the loss where people are; 1 elsewhere."""
LEVEL_MEAN, LEVEL_DEVIATION = 0.5, 1.3
"""Of the logarithm of the noise level in training; the latents' own deviation is 1."""


def plain_attention(_host: Callable, q: Tensor, k: Tensor, v: Tensor, heads: int, **_options: object) -> Tensor:
    """Attention without a mask, `[B, N, heads * d]`: two products and a softmax, as fast as a CPU trains it."""
    batch, queries, width = q.shape
    q, k, v = (x.view(batch, -1, heads, width // heads).transpose(1, 2) for x in (q, k, v))
    shares = ((q * (width // heads) ** -0.5) @ k.transpose(-1, -2)).softmax(-1)
    return (shares @ v).transpose(1, 2).reshape(batch, queries, width)


def predict(
    unet: Callable[..., Tensor],
    noisy: Tensor,
    time: Tensor,
    context: Tensor,
    control: dict[str, list[Tensor]] | None = None,
) -> Tensor:
    """Velocity `[B, 32, h, w]` at `time` `[B]` (0 to 999) with `context` `[B, 77, 128]`; `control` is a ControlNet's output."""
    options = {"optimized_attention_override": plain_attention}
    return unet(noisy, time, context=context, control=control, transformer_options=options)


def signal_and_noise(alpha_bar: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
    """Factors of the clean latents and of the noise at `time` `[B]`, each `[B, 1, 1, 1]`."""
    squared = alpha_bar[time].view(-1, 1, 1, 1)
    return squared.sqrt(), (1 - squared).sqrt()


def noisy_and_velocity(alpha_bar: Tensor, time: Tensor, clean: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """The noisy latents and their velocity (v of Salimans and Ho, arXiv 2202.00512), both as `clean` `[B, C, h, w]`."""
    signal, share = signal_and_noise(alpha_bar, time)
    return signal * clean + share * noise, signal * noise - share * clean


def clean_from(alpha_bar: Tensor, time: Tensor, noisy: Tensor, velocity: Tensor) -> Tensor:
    """The clean latents that a velocity means."""
    signal, share = signal_and_noise(alpha_bar, time)
    return signal * noisy - share * velocity


def noise_levels(alpha_bar: Tensor) -> Tensor:
    """The deviation of the noise at every timestep, in that of the clean latents `[1000]`."""
    return ((1 - alpha_bar) / alpha_bar).sqrt()


def random_times(alpha_bar: Tensor, count: int) -> Tensor:
    """Timesteps `[count]` whose logarithm of the noise level is normal (Karras et al., arXiv 2206.00364).

    Evenly drawn timesteps are mostly so noisy that a picture's details cannot be seen, let alone learnt.
    """
    levels = noise_levels(alpha_bar).log()
    wanted = torch.randn(count, device=alpha_bar.device) * LEVEL_DEVIATION + LEVEL_MEAN
    return torch.searchsorted(levels, wanted).clamp(max=len(levels) - 1)


def velocity_loss(model: nn.ModuleDict, alpha_bar: Tensor, clean: Tensor, tokens: Tensor, people: Tensor) -> Tensor:
    """`velocity_error` of a base model with captions, at random timesteps.

    Args: tokens: of the captions `[B, 77]`.
    """
    kind = next(model["unet"].parameters()).dtype
    context = encode_text(model["text"], tokens).to(kind)

    def velocity(noisy: Tensor, time: Tensor) -> Tensor:
        return predict(model["unet"], noisy.to(kind), time, context)

    return velocity_error(velocity, alpha_bar, random_times(alpha_bar, len(clean)), clean, people)


def velocity_error(velocity_at: Velocity, alpha_bar: Tensor, time: Tensor, clean: Tensor, people: Tensor) -> Tensor:
    """Weighted mean of the squared velocity error.

    Args:
        velocity_at: the velocity of noisy latents at timesteps `[B]`.
        time: timesteps `[B]`, 0 to 999.
        clean: latents `[B, 32, 16, 16]`.
        people: where they are, 0 to 1, `[B, 1, 16, 16]`.
    """
    noisy, velocity = noisy_and_velocity(alpha_bar, time, clean, torch.randn_like(clean))
    error = velocity_at(noisy, time.float()).float() - velocity
    weight = 1 + (PEOPLE_WEIGHT - 1) * people
    return (weight * error.square()).mean() / weight.mean()


@torch.no_grad()
def sample(model: nn.ModuleDict, alpha_bar: Tensor, tokens: Tensor, steps: int = 20, guidance: float = 3.0) -> Tensor:
    """DDIM with guidance against the empty caption: latents `[B, 32, 16, 16]` of `tokens` `[B, 77]`, seed 0."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(len(tokens), 32, 16, 16, generator=generator).to(DEVICE)
    context = encode_text(model["text"], torch.cat((tokens, tokenise([""]).expand_as(tokens))).to(DEVICE))
    times = torch.linspace(len(alpha_bar) - 1, 0, steps + 1).round().long()
    for now, after in zip(times[:-1], times[1:], strict=True):
        both = predict(model["unet"], torch.cat((x, x)), now.float().expand(2 * len(x)), context)
        wanted, unwanted = both.chunk(2)
        velocity = unwanted + guidance * (wanted - unwanted)
        signal, share = alpha_bar[now].sqrt(), (1 - alpha_bar[now]).sqrt()
        clean, noise = signal * x - share * velocity, share * x + signal * velocity
        x = alpha_bar[after].sqrt() * clean + (1 - alpha_bar[after]).sqrt() * noise
    return x
