#include "cpu/fused_cam_kernel.h"
