// libFuzzer's entry points (https://llvm.org/docs/LibFuzzer.html). SALIENT_FUZZ_TARGET names the row of fuzz_targets.h;
// SALIENT_FUZZ_SEEDS, where it is set, a folder that the row's good files are copied to. scripts/fuzz.sh runs it.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "common/error.h"
#include "common/file.h"
#include "common/log.h"
#include "fuzz/fuzz_targets.h"

namespace {

const salient::fuzz::FuzzTarget& chosen_target() {
  const char* name = std::getenv("SALIENT_FUZZ_TARGET");
  for (const auto& target : salient::fuzz::fuzz_targets()) {
    if (name != nullptr && target.name == name) return target;
  }
  std::fprintf(stderr, "SALIENT_FUZZ_TARGET is '%s', expected one of:", name == nullptr ? "" : name);
  for (const auto& target : salient::fuzz::fuzz_targets()) std::fprintf(stderr, " %s", std::string(target.name).c_str());
  std::fputs("\n", stderr);
  std::exit(2);
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  const salient::fuzz::FuzzTarget& target = chosen_target();
  salient::set_log_level(salient::LogLevel::kError);
  if (const char* folder = std::getenv("SALIENT_FUZZ_SEEDS")) {
    int number = 0;
    for (const std::string& text : salient::fuzz::good_files(target, SALIENT_SOURCE_DIR))
      salient::write_file(std::filesystem::path(folder) / ("seed" + std::to_string(number++)), text);
    std::exit(0);
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const salient::fuzz::FuzzTarget& target = chosen_target();
  if (size > target.most) return 0;
  try {
    target.run({reinterpret_cast<const std::byte*>(data), size});
  } catch (const salient::Error& error) {
    if (error.kind() != salient::ErrorKind::kInternal) return 0;
    std::fprintf(stderr, "%s\n", error.message().c_str());
    std::abort();
  }
  return 0;
}
