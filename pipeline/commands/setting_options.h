// The settings of a quantization (pipeline/quantization_settings.h) as flags of a command.
#pragma once

#include <string>
#include <vector>

#include "pipeline/commands/arguments.h"
#include "pipeline/quantization_settings.h"

namespace salient::pipeline {

// One row for each setting, two for those that have --key and --no-key.
std::vector<OptionRow> setting_options();

// What was given, as one layer. `command` opens the error text: "salient quantize". Errors: invalid argument; those of reading a
// file that a flag names.
GivenSettings given_settings(const Arguments& arguments, const std::string& command);

// AutoAWQ's quant_config: a JSON or YAML file, or the JSON itself when the word begins with '{'. Errors: not found, corruption,
// invalid argument.
GivenSettings read_quant_config(const std::string& word, const std::string& command);

}  // namespace salient::pipeline
