// Symbolic links in a model's folder. Somebody else's checkpoint must not make this program read, and copy into an artifact, files
// that do not belong to it.
#pragma once

#include <filesystem>

namespace salient::models {

// Every symbolic link directly in `folder` must lead to something in `folder`, or, where it is a snapshot in a Hugging Face cache
// (models--ORG--NAME/snapshots/REVISION), in that model's part of the cache. The folder itself may be reached through links.
// Errors: invalid argument, naming the link and where it leads.
void check_links(const std::filesystem::path& folder);

}  // namespace salient::models
