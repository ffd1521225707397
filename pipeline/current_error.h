// What was thrown, whoever threw it, as an Error: of libtorch, of the standard library's file functions, of an allocation.
#pragma once

#include "common/error.h"

namespace salient::pipeline {

// Of the exception that is being handled. Call in a catch block only.
Error current_error();

}  // namespace salient::pipeline
