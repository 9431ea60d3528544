"""The heads of transformers' auto mappings, and the task each is tested with. Pure data.

The order is that in which a model type's main head is looked for: what a model is made for comes before what can be
put on top of any encoder. A mapping that is not listed, as of a later transformers, gets the task `UNKNOWN_HEAD`.
"""

from __future__ import annotations

TASK_OF_HEAD: dict[str, str] = {
    "MULTIMODAL_LM": "multimodal-generation",
    "IMAGE_TEXT_TO_TEXT": "multimodal-generation",
    "SPEECH_SEQ_2_SEQ": "speech-to-text",
    "SEQ_TO_SEQ_CAUSAL_LM": "text2text-generation",
    "MASKED_LM": "fill-mask",
    "CAUSAL_LM": "text-generation",
    "CTC": "automatic-speech-recognition",
    "RNNT": "speech-to-text",
    "TDT": "speech-to-text",
    "IMAGE_CLASSIFICATION": "image-classification",
    "OBJECT_DETECTION": "object-detection",
    "ZERO_SHOT_OBJECT_DETECTION": "zero-shot-object-detection",
    "ZERO_SHOT_IMAGE_CLASSIFICATION": "zero-shot-image-classification",
    "MASK_GENERATION": "promptable-segmentation",
    "SEMANTIC_SEGMENTATION": "image-segmentation",
    "UNIVERSAL_SEGMENTATION": "image-segmentation",
    "INSTANCE_SEGMENTATION": "image-segmentation",
    "IMAGE_SEGMENTATION": "image-segmentation",
    "VIDEO_CLASSIFICATION": "video-classification",
    "AUDIO_CLASSIFICATION": "audio-classification",
    "DEPTH_ESTIMATION": "depth-estimation",
    "NORMAL_ESTIMATION": "depth-estimation",
    "POINTMAP_ESTIMATION": "depth-estimation",
    "TEXT_TO_WAVEFORM": "text-to-audio",
    "TEXT_TO_SPECTROGRAM": "text-to-audio",
    "KEYPOINT_DETECTION": "keypoint-detection",
    "KEYPOINT_MATCHING": "keypoint-matching",
    "POSE_ESTIMATION": "keypoint-detection",
    "IMAGE_TO_IMAGE": "image-to-image",
    "IMAGE_MATTING": "image-to-image",
    "TIME_SERIES_PREDICTION": "time-series-forecasting",
    "TEXT_RECOGNITION": "text-recognition",
    "TABLE_RECOGNITION": "text-recognition",
    "PRETRAINING": "pretraining",
    "SEQUENCE_CLASSIFICATION": "text-classification",
    "QUESTION_ANSWERING": "question-answering",
    "TOKEN_CLASSIFICATION": "token-classification",
    "DECISION": "reinforcement-learning",
    "BACKBONE": "backbone",
    # Heads that are never a model type's main one in transformers 5.
    "RETRIEVAL": "retrieval",
    "VISUAL_QUESTION_ANSWERING": "visual-question-answering",
    "DOCUMENT_QUESTION_ANSWERING": "document-question-answering",
    "TABLE_QUESTION_ANSWERING": "table-question-answering",
    "MULTIPLE_CHOICE": "multiple-choice",
    "NEXT_SENTENCE_PREDICTION": "next-sentence-prediction",
    "MASKED_IMAGE_MODELING": "masked-image-modeling",
    "CAUSAL_IMAGE_MODELING": "pretraining",
    "AUDIO_FRAME_CLASSIFICATION": "audio-frame-classification",
    "AUDIO_XVECTOR": "audio-xvector",
    "AUDIO_TOKENIZATION": "audio-codec",
    "TIME_SERIES_CLASSIFICATION": "time-series-classification",
    "TIME_SERIES_REGRESSION": "time-series-classification",
    "TEXT_ENCODING": "base-model",
    "IMAGE": "base-model",
    "": "base-model",
}

UNKNOWN_HEAD = "pretraining"
"""The task of a head this table does not know: its inputs are made from the signature, as for any generic task."""

MAIN_HEADS = tuple(TASK_OF_HEAD)

PROCESSED: dict[tuple[str, str], str] = {
    ("IMAGE_TEXT_TO_TEXT", "llava"): "image-text-to-text",
    ("IMAGE_TEXT_TO_TEXT", "llava_next"): "image-text-to-text",
    ("SPEECH_SEQ_2_SEQ", "whisper"): "automatic-speech-recognition",
    ("MASK_GENERATION", "sam"): "mask-generation",
    ("", "xclip"): "zero-shot-video-classification",
    ("", "clap"): "zero-shot-audio-classification",
}
"""Pairs whose processor `checkpoints.processors` can make, so that they have the nicer task of their head."""
