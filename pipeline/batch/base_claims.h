// What a model's files say about the model it was made from.
#pragma once

#include <string>
#include <vector>

#include "common/json.h"
#include "pipeline/batch/model_listing.h"

namespace salient::pipeline {

struct BaseClaim {
  std::string source;  // "config.json _name_or_path"
  std::string text;    // a path, "org/name", or a name
};

// quantization_metadata.json of this program, null where there is none or it cannot be read.
Json own_metadata(const ListedModel& model);

// Of other tools' files and of the model card, in the order in which they are believed. What cannot be read says nothing.
std::vector<BaseClaim> base_claims(const ListedModel& model);

}  // namespace salient::pipeline
