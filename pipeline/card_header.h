// What stands between the two lines of dashes that a model card begins with.
#pragma once

#include <filesystem>

#include "common/json.h"

namespace salient::pipeline {

// Null where there is no card, no header, or one that cannot be read: it is somebody else's file, and nothing depends on it.
Json read_card_header(const std::filesystem::path& card);

}  // namespace salient::pipeline
