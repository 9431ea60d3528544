"""The text that tokenizers are trained on. Pure data."""

from __future__ import annotations

import string

CORPUS = (
    "Paris is the capital of France, and Berlin is the capital of Germany.",
    "A photo of a cat. A photo of a dog. A photo of a red circle on a white background.",
    "The quick brown fox jumps over the lazy dog.",
    "A man is playing the guitar on the stage while a woman sings a song.",
    "What is in the image? Describe the picture in one short sentence.",
    "translate English to German: The house is wonderful and the garden is green.",
    "The weather is nice today, and we will go to the park and eat ice cream.",
    "I love this movie, it is great. I hate this movie, it is terrible.",
    "The sound of a dog barking, of rain falling, and of a bell ringing.",
    "Once upon a time there was a king who had three daughters.",
)
"""The words of the sample inputs are among these sentences'."""

CHARACTERS = string.ascii_letters + string.digits + string.punctuation
"""What English text is spelled with."""

CTC_CHARACTERS = ("<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ")
"""The vocabulary of English CTC models, as in facebook/wav2vec2-base-960h: blank first, `|` between words."""

WHISPER_TOKENS = (
    "<|startoftranscript|>",
    "<|en|>",
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
)
"""Whisper's control tokens in the order of its vocabulary, with one language."""

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: "
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %} {% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)
"""A chat with images, in the form of LLaVA's."""
