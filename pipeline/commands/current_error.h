// Whatever was thrown, as an Error.
#pragma once

#include "common/error.h"

namespace salient::pipeline {

// To be called in a catch block. Errors of libtorch, of the file system and of the allocator get a kind, a code and a hint; what
// nobody expected is an internal error that asks to be reported. Throws nothing.
Error current_error();

}  // namespace salient::pipeline
