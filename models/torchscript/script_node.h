// A TorchScript module as a value, before libtorch's compiler sees it: what the sources that write TorchScript text need to know of
// it.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace salient::models {

struct ScriptChild;

// Nodes of one `kind` with the same source and the same names of buffers and children become one TorchScript class, so that the
// code of a decoder does not grow with its blocks.
struct ScriptNode {
  std::string kind;    // the class's name: "PackedLinear"
  std::string source;  // its methods in TorchScript, configuration folded in as literals
  std::vector<std::pair<std::string, at::Tensor>> buffers;
  std::vector<ScriptChild> children;
};

struct ScriptChild {
  ScriptChild(std::string_view its_name, ScriptNode its_node) : name(its_name), node(std::move(its_node)) {}
  std::string name;
  ScriptNode node;
};

}  // namespace salient::models
