"""What is seen, as a vector, against goals said in words: rewards for whoever has an image encoder and no reward.

An entry is a frame, read by an encoder, or the vector that one made of it elsewhere. Encoders are functions from
frames, or texts, to rows of numbers; `dual_encoder` loads CLIP and its kind from `transformers`.
"""

from guerdon.rewards.embedding.driving import driving, driving_reward
from guerdon.rewards.embedding.encoders import DualEncoder, dual_encoder
from guerdon.rewards.embedding.goals import contrast, goal, projected
from guerdon.rewards.embedding.labels import best_alpha, label_distance, relabel
from guerdon.rewards.embedding.tokens import token_encoder

__all__ = [
    "DualEncoder",
    "best_alpha",
    "contrast",
    "driving",
    "driving_reward",
    "dual_encoder",
    "goal",
    "label_distance",
    "projected",
    "relabel",
    "token_encoder",
]
