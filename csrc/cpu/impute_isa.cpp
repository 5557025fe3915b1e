#include "cpu/impute_kernel.h"
