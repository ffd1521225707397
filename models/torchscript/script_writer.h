// From a ScriptNode to a file that torch.jit.load reads.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "models/torchscript/script_node.h"

namespace salient::models {

// Compiles the node's text and writes the archive, under a temporary name until it is complete. libtorch's writer takes the tensors
// one by one from where they lie, so that nothing is added to what they occupy. `extra_files`: name in the archive -> content. The
// same node gives the same bytes. Errors: io; internal where the text does not compile.
void write_torchscript(const std::filesystem::path& path, const ScriptNode& node,
                       const std::map<std::string, std::string>& extra_files);

}  // namespace salient::models
