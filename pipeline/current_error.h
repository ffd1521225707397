// What was thrown, whoever threw it, as an Error: of libtorch, of the standard library's file functions, of an allocation; and how
// the program shows it.
#pragma once

#include <string>

#include "common/error.h"

namespace salient::pipeline {

// Of the exception that is being handled. Call in a catch block only.
Error current_error();

// For a list, on one line: "[CODE] message (hint: ...)".
std::string line_of(const Error& error);

// To standard error: kind, code, message, and the hint on a line of its own.
void print_error(const Error& error);

}  // namespace salient::pipeline
