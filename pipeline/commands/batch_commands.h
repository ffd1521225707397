// Commands that go through many models.
#pragma once

#include <string>
#include <vector>

namespace salient::pipeline {

void evaluate_all_command(const std::vector<std::string>& words);
void watch_command(const std::vector<std::string>& words);

}  // namespace salient::pipeline
