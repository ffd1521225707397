#include "models/torchscript/script_text.h"

namespace salient::models {

std::string real_literal(double value) {
  std::string text = fmt::format("{}", value);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

std::string dtype_literal(c10::ScalarType dtype) { return std::to_string(static_cast<int>(dtype)); }

}  // namespace salient::models
