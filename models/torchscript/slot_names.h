// What linears and norms are called inside an exported module, whatever their architecture calls them.
#pragma once

#include <string_view>

#include "models/decoder/tensor_names.h"

namespace salient::models {

std::string_view script_name(LinearSlot slot);  // "q_proj"
std::string_view script_name(NormSlot slot);    // "mlp_input_norm"

}  // namespace salient::models
