// Small helpers for writing TorchScript text.
//
// In the text scalar types stand as the integers that TorchScript itself saves (c10::ScalarType): 4 int64, 5 float16, 6 float32, 15
// bfloat16.
#pragma once

#include <c10/core/ScalarType.h>
#include <fmt/format.h>

#include <string>
#include <utility>

namespace salient::models {

// Appends one line; `format` carries its own indentation.
template <typename... Args>
void add_line(std::string& text, fmt::format_string<Args...> format, Args&&... args) {
  text += fmt::format(format, std::forward<Args>(args)...) + "\n";
}

// A literal that reads back as the same double and as a float, never as an int: "1.0", "1e-06".
std::string real_literal(double value);
// The integer that stands for a scalar type: "6".
std::string dtype_literal(c10::ScalarType dtype);

}  // namespace salient::models
