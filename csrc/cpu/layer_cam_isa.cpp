#include "cpu/layer_cam_kernel.h"
