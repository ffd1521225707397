#include "pipeline/bit_plan_file.h"

#include <limits>
#include <utility>

#include "common/error.h"
#include "common/file.h"
#include "common/json.h"
#include "common/log.h"
#include "pipeline/quantize_progress.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

constexpr const char* kPlanFile = "bit_plan.json";

}  // namespace

void save_bit_plan(const fs::path& work_folder, const std::string& fingerprint, const BitPlan& plan) {
  Json modules = Json::array();
  for (const PlannedModule& module : plan.modules) {
    Json sensitivity = Json::array();
    for (const auto& [bits, error] : module.sensitivity) sensitivity.push_back({bits, error});  // NaN becomes null
    modules.push_back({{"name", module.name},
                       {"bits", module.bits},
                       {"weights", module.weights},
                       {"importance", module.importance},
                       {"sensitivity", sensitivity}});
  }
  write_file(work_folder / kPlanFile,
             dump_json(with_own_checksum(
                 {{"fingerprint", fingerprint}, {"mean_bits", plan.mean_bits}, {"error", plan.error}, {"modules", modules}})));
}

std::optional<BitPlan> load_bit_plan(const fs::path& work_folder, const std::string& fingerprint) {
  const fs::path file = work_folder / kPlanFile;
  if (!fs::exists(file)) return std::nullopt;
  const auto number = [](const Json& json) {
    return json.is_null() ? std::numeric_limits<double>::quiet_NaN() : json.get<double>();
  };
  try {
    const Json json = read_json_file(file);
    if (!has_own_checksum(json)) fail(ErrorKind::kCorruption, "{}: was changed", file.string());
    if (json.at("fingerprint") != fingerprint) return std::nullopt;
    BitPlan plan;
    plan.mean_bits = json.at("mean_bits").get<double>();
    plan.error = json.at("error").get<double>();
    for (const Json& entry : json.at("modules")) {
      PlannedModule module{entry.at("name").get<std::string>(),
                           entry.at("bits").get<int>(),
                           entry.at("weights").get<int64_t>(),
                           number(entry.at("importance")),
                           {}};
      for (const Json& pair : entry.at("sensitivity")) module.sensitivity.emplace_back(pair.at(0).get<int>(), number(pair.at(1)));
      plan.modules.push_back(std::move(module));
    }
    return plan;
  } catch (const std::exception& error) {  // damaged: as good as none
    log_warn("bit_plan_unreadable reason=\"{}\"", error.what());
    return std::nullopt;
  }
}

bool is_bit_plan_file(const std::string& name) { return name == kPlanFile; }

}  // namespace salient::pipeline
