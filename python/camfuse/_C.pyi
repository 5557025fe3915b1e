import enum

class Rule(enum.IntEnum):
    GRADCAM = 0
    GRADCAM_PLUS_PLUS = 1
    XGRADCAM = 2
    HIRESCAM = 3
    ELEMENTWISE = 4
    LAYERCAM = 5
    WEIGHTED = 6
    GRADCAM_MAGNITUDE = 7
    GRADCAM_PLUS_PLUS_MAGNITUDE = 8
    XGRADCAM_MAGNITUDE = 9
    HIRESCAM_MAGNITUDE = 10
    WEIGHTED_MAGNITUDE = 11

class Terms(enum.IntEnum):
    ACTIVATION = 0
    PRODUCT = 1
    POSITIVE_PRODUCT = 2
    POSITIVE_GRADIENT = 3
    GRADIENT_MAGNITUDE = 4
    WEIGHTED = 5

class Panel(enum.IntEnum):
    SOURCE = 0
    LAYER = 1
    GLOBAL = 2

class PixelLayout(enum.IntEnum):
    RGB24 = 0
    I420 = 1
    NV12 = 2

def build_info() -> dict[str, str | int | bool]: ...
def cuda_probe(count: int) -> int: ...
