"""The families and subfamilies, in the form in which users write their own.

The five families and their subfamilies are those of the guide; `video` and `time_series` are added because
transformers has such models and calling them anything else would be wrong. `token_classifier` holds every
classification head over text: per token, per span and per text.

Keywords here are the weakest evidence of a name; well-known checkpoints stand in `known_models`, and the model types of
the installed transformers need no list.
"""

from __future__ import annotations

from pytest_hfaccel.classify.records import Definition


def _definition(keywords: str = "", tasks: str = "", methods: str = "", description: str = "") -> Definition:
    """Build a definition from words that are separated by spaces."""
    definition: Definition = {"keywords": keywords.split(), "tasks": tasks.split(), "methods": methods.split()}
    return {"description": description, **definition} if description else definition


MODEL_FAMILIES: dict[str, Definition] = {
    "embedding": _definition(
        description="Text embedding and representation models",
        keywords="bert embedding encoder sentence similarity ner sentiment classifier",
        tasks="fill-mask masked-language-modeling feature-extraction sentence-similarity text-classification "
        "token-classification text-ranking question-answering table-question-answering "
        "zero-shot-classification multiple-choice ner sentiment-analysis text-embedding",
        methods="encode embed embed_query embed_documents get_embeddings mean_pooling similarity",
    ),
    "text_generation": _definition(
        description="Text generation and language models",
        keywords="gpt llm chat instruct coder summarization translation causal story",
        tasks="text-generation language-modeling causal-language-modeling text2text-generation summarization "
        "translation conversational code-generation",
        methods="generate chat complete prepare_inputs_for_generation summarize translate",
    ),
    "vision": _definition(
        description="Vision and image processing models",
        keywords="vision image visual detection segmentation depth pixel face photo",
        tasks="image-classification image-feature-extraction object-detection zero-shot-object-detection "
        "image-segmentation semantic-segmentation instance-segmentation panoptic-segmentation mask-generation "
        "depth-estimation image-to-image keypoint-detection keypoint-matching pose-estimation "
        "unconditional-image-generation",
        methods="detect segment classify_image post_process_object_detection estimate_depth",
    ),
    "audio": _definition(
        description="Audio processing models",
        keywords="audio speech voice asr tts sound music speaker",
        tasks="automatic-speech-recognition speech-recognition speech-to-text audio-classification "
        "zero-shot-audio-classification text-to-speech text-to-audio audio-to-audio audio-text-to-text "
        "voice-activity-detection speaker-verification speech-translation",
        methods="transcribe recognize synthesize generate_speech extract_audio_features",
    ),
    "multimodal": _definition(
        description="Models that combine multiple modalities",
        keywords="multimodal captioning vqa vlm document omni",
        tasks="image-text-to-text image-to-text image-captioning visual-question-answering "
        "document-question-answering zero-shot-image-classification image-text-retrieval "
        "visual-document-retrieval video-text-to-text any-to-any text-to-image",
        methods="get_image_features get_image_text_features caption answer_visual_question encode_image",
    ),
    "video": _definition(
        description="Models of moving pictures",
        keywords="video kinetics",
        tasks="video-classification zero-shot-video-classification text-to-video video-to-video",
        methods="get_video_features classify_video",
    ),
    "time_series": _definition(
        description="Models of sequences of numbers: forecasts, and decisions in control",
        keywords="timeseries forecast forecasting reinforcement",
        tasks="time-series-forecasting time-series-classification reinforcement-learning",
        methods="forecast",
    ),
}

MODEL_SUBFAMILIES: dict[str, dict[str, Definition]] = {
    "embedding": {
        "masked_lm": _definition(keywords="mlm bert", tasks="fill-mask masked-language-modeling"),
        "sentence_transformer": _definition(
            keywords="sentence embedding similarity",
            tasks="sentence-similarity feature-extraction text-embedding",
            methods="encode embed embed_query embed_documents mean_pooling",
        ),
        "token_classifier": _definition(
            keywords="ner classifier sentiment",
            tasks="token-classification text-classification text-ranking question-answering "
            "zero-shot-classification multiple-choice ner sentiment-analysis",
        ),
    },
    "text_generation": {
        "causal_lm": _definition(
            keywords="gpt causal coder",
            tasks="text-generation code-generation language-modeling causal-language-modeling",
            methods="complete",
        ),
        "seq2seq": _definition(
            keywords="seq2seq summarization translation",
            tasks="text2text-generation summarization translation",
            methods="summarize translate",
        ),
        "chat_model": _definition(keywords="chat instruct", tasks="conversational", methods="chat"),
    },
    "vision": {
        "image_classifier": _definition(
            keywords="classification classifier",
            tasks="image-classification image-feature-extraction",
            methods="classify_image",
        ),
        "object_detector": _definition(
            keywords="detection detector",
            tasks="object-detection zero-shot-object-detection",
            methods="detect post_process_object_detection",
        ),
        "segmentation": _definition(
            keywords="segmentation mask",
            tasks="image-segmentation semantic-segmentation instance-segmentation panoptic-segmentation "
            "mask-generation",
            methods="segment",
        ),
        "depth_estimation": _definition(keywords="depth", tasks="depth-estimation", methods="estimate_depth"),
    },
    "audio": {
        "speech_recognition": _definition(
            keywords="asr speech",
            tasks="automatic-speech-recognition speech-recognition speech-to-text speech-translation "
            "audio-text-to-text",
            methods="transcribe recognize",
        ),
        "audio_classifier": _definition(
            keywords="sound speaker",
            tasks="audio-classification zero-shot-audio-classification voice-activity-detection speaker-verification",
        ),
        "text_to_speech": _definition(
            keywords="tts music", tasks="text-to-speech text-to-audio", methods="synthesize generate_speech"
        ),
    },
    "multimodal": {
        "vision_language": _definition(
            keywords="captioning vqa vlm",
            tasks="image-text-to-text image-to-text image-captioning visual-question-answering video-text-to-text "
            "any-to-any",
            methods="caption answer_visual_question",
        ),
        "image_text_encoder": _definition(
            keywords="retrieval",
            tasks="zero-shot-image-classification image-text-retrieval visual-document-retrieval",
            methods="get_image_features encode_image",
        ),
        "document_qa": _definition(keywords="document", tasks="document-question-answering"),
    },
    "video": {
        "video_classifier": _definition(keywords="kinetics", tasks="video-classification", methods="classify_video"),
        "video_text_encoder": _definition(tasks="zero-shot-video-classification", methods="get_video_features"),
    },
    "time_series": {
        "forecaster": _definition(
            keywords="forecast forecasting timeseries",
            tasks="time-series-forecasting time-series-classification",
            methods="forecast",
        ),
    },
}

GENERAL_TASKS = frozenset(
    {
        "feature extraction",
        "text classification",
        "question answering",
        "zero shot classification",
        "text generation",
        "translation",
    }
)
"""Tasks that models of several families serve; they count as half a match.

A LLaMA can classify texts, every encoder of any modality extracts features, SeamlessM4T translates.
"""
