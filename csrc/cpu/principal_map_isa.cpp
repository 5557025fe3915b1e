#include "cpu/principal_map_kernel.h"
