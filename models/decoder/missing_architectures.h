// What to tell who asks for an architecture that is not in the table.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "models/decoder/architecture.h"

namespace salient::models {

// A known architecture that is not built. `what` is a clause: "it has state-space layers, which are not built".
struct MissingArchitecture {
  std::string_view model_type;
  std::string_view what;
  std::string_view nearest = "";  // the supported model_type that is closest in kind, if one is
};
std::span<const MissingArchitecture> missing_architectures();

// The error text: `model_type`, what is missing, the nearest supported ones, and all that are supported. `text_model`: the
// model_type of config.json's "text_config", where there is one.
std::string describe_missing(std::string_view model_type, std::string_view text_model = {});

}  // namespace salient::models
