"""The requests and answers of the tasks that read or make pictures; pictures and masks in answers are PNG in base64."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from hfserve.tasks.schemas.base import (
    Answer,
    ImageInput,
    Labels,
    LabelScore,
    Parameters,
    Schema,
    Score,
    Template,
)
from hfserve.tasks.schemas.generation import Generated, Generation
from hfserve.tasks.schemas.text import MaxLength, Padding

MOST_FRAMES = 1_024

Share = Annotated[float, Field(ge=0, le=1)]
PNG = Annotated[
    str,
    Field(
        description="A picture as PNG in base64.",
        json_schema_extra={"contentEncoding": "base64", "contentMediaType": "image/png"},
    ),
]
TopK = Annotated[int | None, Field(ge=1, description="How many to give, the likeliest first; null: five.")]
Function = Annotated[
    Literal["sigmoid", "softmax", "none"] | None,
    BeforeValidator(lambda given: given.lower() if isinstance(given, str) else given),
    Field(description="What makes scores of the model's figures; null: what suits the model."),
]


class Picture(BaseModel):
    """A picture under its name; parameters may stand beside it."""

    model_config = ConfigDict(extra="allow")

    image: ImageInput


PictureInput = ImageInput | Picture


class PictureParameters(Parameters):
    """What every task that transformers' pipelines run takes."""

    batch_size: int | None = Field(None, ge=1, description="Taken and not used: it changes no answer.")


class Box(Answer):
    """A box in a picture, in pixels from its upper left corner."""

    xmin: int
    ymin: int
    xmax: int
    ymax: int


class Detection(Answer):
    """A thing that was found in a picture."""

    score: Score
    label: str
    box: Box


# visual-question-answering


class PictureQuestion(BaseModel):
    """A question about a picture; of lists, each question is asked about each picture."""

    model_config = ConfigDict(extra="forbid")

    image: ImageInput | list[ImageInput]
    question: str | list[str] = Field(description="The question.")


class VisualQuestionAnsweringParameters(Generation):
    """What a request may choose; only a model that writes its answers takes what is for generating text."""

    top_k: int | None = Field(
        None,
        ge=1,
        description="How many answers to give, the likeliest first; null: five. A model that writes has one.",
    )
    truncation: bool | Literal["longest_first", "only_first", "do_not_truncate"] = Field(
        True, description="Whether a question that is too long for the model is cut; false refuses it with 422."
    )
    padding: Padding = False


class ChosenAnswer(Answer):
    """One of the answers that the model knows."""

    score: Score
    answer: str


class WrittenAnswer(Answer):
    """An answer that the model wrote."""

    answer: str


Answers = list[ChosenAnswer] | list[WrittenAnswer]
VISUAL_QUESTION_ANSWERING = Schema(
    inputs=PictureQuestion, answer=Answers | list[Answers], parameters=VisualQuestionAnsweringParameters
)

# image-to-text


class ImageToTextParameters(Generation):
    """What a request may choose."""

    prompt: str | None = Field(None, description="A text to go on with, or to answer, in models that take one.")
    generate_kwargs: Generation | None = Field(
        None, description="Parameters of generation in an object of their own, as the pipeline took them."
    )
    truncation: bool = Field(
        True, description="Whether a prompt that is too long for the model is cut; false refuses it with 422."
    )


IMAGE_TO_TEXT = Schema(inputs=PictureInput, answer=list[Generated], parameters=ImageToTextParameters)

# image-to-image


class ImageToImageParameters(Parameters):
    """There is nothing to choose."""


IMAGE_TO_IMAGE = Schema(inputs=PictureInput, answer=PNG, parameters=ImageToImageParameters)

# image-classification


class ImageClassificationParameters(PictureParameters):
    """What a request may choose."""

    top_k: TopK = None
    function_to_apply: Function = None


IMAGE_CLASSIFICATION = Schema(inputs=PictureInput, answer=list[LabelScore], parameters=ImageClassificationParameters)

# image-feature-extraction


class ImageFeatureExtractionParameters(PictureParameters):
    """What a request may choose."""

    pool: bool | None = Field(None, description="Give one vector for the picture, where the model has one.")
    return_tensors: bool | None = Field(None, description="Taken and not used: numbers come as lists.")


Vectors = list[list[float]]
IMAGE_FEATURE_EXTRACTION = Schema(
    inputs=PictureInput,
    answer=Vectors | list[Vectors] | list[list[Vectors]],
    parameters=ImageFeatureExtractionParameters,
)

# image-segmentation


class ImageSegmentationParameters(PictureParameters):
    """What a request may choose; the thresholds are for models that find things, not for those that label pixels."""

    subtask: Literal["panoptic", "instance", "semantic"] | None = Field(
        None, description="What to tell apart; null: the first that the model can: all things, things, kinds."
    )
    threshold: Share = Field(0.9, description="Least score of a segment.")
    mask_threshold: Share = Field(0.5, description="Least score of a pixel to be in a mask.")
    overlap_mask_area_threshold: Share = Field(0.5, description="Pieces of a mask below this share of it are dropped.")


class Segment(Answer):
    """A part of a picture."""

    score: Score | None
    label: str
    mask: PNG


IMAGE_SEGMENTATION = Schema(inputs=PictureInput, answer=list[Segment], parameters=ImageSegmentationParameters)

# object-detection


class ObjectDetectionParameters(PictureParameters):
    """What a request may choose."""

    threshold: Share = Field(0.5, description="Least score of a thing.")


OBJECT_DETECTION = Schema(inputs=PictureInput, answer=list[Detection], parameters=ObjectDetectionParameters)

# depth-estimation


class DepthEstimationParameters(PictureParameters):
    """There is nothing to choose."""


class Depth(Answer):
    """How far each pixel is: as the model's figures in rows, and as a gray picture from the least to the greatest."""

    predicted_depth: list[list[float]]
    depth: PNG


DEPTH_ESTIMATION = Schema(inputs=PictureInput, answer=Depth, parameters=DepthEstimationParameters)

# mask-generation


class MaskGenerationParameters(PictureParameters):
    """What a request may choose: a grid of points is laid over the picture, and for each point masks are sought."""

    points_per_batch: int | None = Field(64, ge=1, description="Points run together; null: all.")
    points_per_crop: int = Field(32, ge=1, le=128, description="Points in each direction.")
    crops_n_layers: int = Field(
        0, ge=0, le=3, description="Layers of crops, each of four times as many, to look at too."
    )
    crop_overlap_ratio: Share = Field(512 / 1500, description="How much of their length crops have in common.")
    crop_n_points_downscale_factor: int = Field(1, ge=1, description="Each layer has so many times fewer points.")
    pred_iou_thresh: float = Field(0.88, allow_inf_nan=False, description="Least quality of a mask, by the model.")
    stability_score_thresh: float = Field(
        0.95, allow_inf_nan=False, description="Least share of a mask that stays when its threshold moves."
    )
    stability_score_offset: float = Field(1, allow_inf_nan=False, description="How far the threshold moves for that.")
    mask_threshold: float = Field(0, allow_inf_nan=False, description="Least figure of a pixel to be in a mask.")
    max_hole_area: float | None = Field(None, ge=0, description="Holes of so many pixels are closed; null: none.")
    max_sprinkle_area: float | None = Field(None, ge=0, description="Specks of so many pixels go; null: none.")
    crops_nms_thresh: Share = Field(0.7, description="Overlap at which the worse of two masks goes.")
    output_rle_mask: bool = Field(False, description="Give each mask as run lengths too.")
    output_bboxes_mask: bool = Field(False, description="Give the box of each mask too.")


class RunLengths(Answer):
    """A mask as the lengths of its runs, column by column, beginning with what is outside."""

    size: list[int]
    counts: list[int]


class Masks(Answer):
    """The masks of a picture, with their qualities in the same order."""

    masks: list[PNG]
    scores: list[Score]
    rle_mask: list[RunLengths] | None = None
    bounding_boxes: list[list[float]] | None = None


MASK_GENERATION = Schema(inputs=PictureInput, answer=Masks, parameters=MaskGenerationParameters)

# keypoint-matching

Pair = Annotated[list[ImageInput], Field(min_length=2, max_length=2, description="Two pictures of the same thing.")]


class Pictures(BaseModel):
    """Two pictures under their name; parameters may stand beside them."""

    model_config = ConfigDict(extra="allow")

    images: Pair


class KeypointMatchingParameters(PictureParameters):
    """What a request may choose."""

    threshold: float | None = Field(None, ge=0, le=1, description="Least score of a match; null: 0.")


class Point(Answer):
    """A point in a picture, in pixels from its upper left corner."""

    x: float
    y: float


class Match(Answer):
    """A point of the first picture and the same one in the second."""

    keypoint_image_0: Point
    keypoint_image_1: Point
    score: Score


KEYPOINT_MATCHING = Schema(inputs=Pair | Pictures, answer=list[Match], parameters=KeypointMatchingParameters)

# zero-shot-image-classification


class LabelWords(Parameters):
    """How labels are encoded; the names are the tokenizer's."""

    add_special_tokens: bool | None = None
    max_length: MaxLength = None
    padding: bool | str | None = None
    truncation: bool | str | None = None


class ZeroShotImageClassificationParameters(PictureParameters):
    """What a request may choose; the label takes the place of {} in the template."""

    candidate_labels: Labels
    hypothesis_template: Template = "This is a photo of {}."
    tokenizer_kwargs: LabelWords | None = Field(None, description="How labels are encoded.")


ZERO_SHOT_IMAGE_CLASSIFICATION = Schema(
    inputs=PictureInput, answer=list[LabelScore], parameters=ZeroShotImageClassificationParameters
)

# zero-shot-object-detection


class ZeroShotObjectDetectionParameters(PictureParameters):
    """What a request may choose."""

    candidate_labels: Labels
    threshold: Share = Field(0.1, description="Least score of a thing.")
    top_k: int | None = Field(None, ge=1, description="How many things to give, the surest first; null: all.")


ZERO_SHOT_OBJECT_DETECTION = Schema(
    inputs=PictureInput, answer=list[Detection], parameters=ZeroShotObjectDetectionParameters
)

# document-question-answering

Edges = Annotated[list[float], Field(min_length=4, max_length=4, description="left, top, right, bottom; 0 to 1000")]


class DocumentQuestion(BaseModel):
    """A question about a picture of a document, about its words with their boxes, or about both."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"anyOf": [{"required": ["image"]}, {"required": ["word_boxes"]}]}
    )

    question: str = Field(description="The question.")
    image: ImageInput | None = None
    word_boxes: list[tuple[str, Edges]] | None = Field(
        None, description="Words and where they stand; without them they are read from the picture, by Tesseract."
    )


class DocumentQuestionAnsweringParameters(PictureParameters):
    """What a request may choose; null means the default."""

    top_k: int | None = Field(None, ge=1, description="How many answers to give, the likeliest first; null: one.")
    max_answer_len: int | None = Field(None, ge=1, description="Most words of an answer; null: 15.")
    handle_impossible_answer: bool | None = Field(None, description="Whether there may be no answer.")
    doc_stride: int | None = Field(
        None, ge=0, description="Tokens that a piece of a long document shares with the next."
    )
    max_seq_len: int | None = Field(None, ge=1, description="Most tokens of question and piece; null: the model's.")
    max_question_len: int | None = Field(None, ge=1, description="Taken and not used, as by the pipeline.")
    padding: bool | str | None = Field(None, description="How pieces are filled up; it changes no answer.")
    lang: str | None = Field(None, pattern="^[A-Za-z_+]+$", description="Language in which Tesseract reads the words.")


class DocumentAnswer(Answer):
    """An answer with the numbers of its first and last word."""

    score: Score
    answer: str
    start: int
    end: int


class ReadAnswer(Answer):
    """An answer of a model that writes; null when it wrote none."""

    answer: str | None


DOCUMENT_QUESTION_ANSWERING = Schema(
    inputs=DocumentQuestion,
    answer=list[DocumentAnswer] | list[ReadAnswer],
    parameters=DocumentQuestionAnsweringParameters,
)

# video-classification

VideoInput = Annotated[
    str,
    Field(
        description="A film in base64, as a data URL, or by its URL where HFSERVE_ALLOW_URLS lets it be fetched.",
        json_schema_extra={"contentEncoding": "base64", "contentMediaType": "video/*"},
    ),
]


class Film(BaseModel):
    """A film under its name; parameters may stand beside it."""

    model_config = ConfigDict(extra="allow")

    video: VideoInput


class VideoClassificationParameters(PictureParameters):
    """What a request may choose."""

    top_k: TopK = None
    num_frames: int | None = Field(
        None, ge=1, le=MOST_FRAMES, description="Frames to look at; null: the model's number."
    )
    frame_sampling_rate: int | None = Field(None, ge=1, description="Look at one of so many frames; null: at each.")
    function_to_apply: Literal["sigmoid", "softmax", "none"] | None = Field(
        None, description="What makes scores of the model's figures; null: what suits the model."
    )


VIDEO_CLASSIFICATION = Schema(
    inputs=VideoInput | Film, answer=list[LabelScore], parameters=VideoClassificationParameters
)
