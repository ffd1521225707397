#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <functional>
#include <mutex>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "common/cancellation.h"
#include "common/error.h"
#include "common/log.h"
#include "common/yaml.h"
#include "pipeline/commands/commands.h"
#include "pipeline/commands/session.h"
#include "pipeline/current_error.h"
#include "pipeline/plugin/host_torch.h"
#include "pipeline/plugin/salient.h"
#include "pipeline/run_pipeline.h"
#include "pipeline/run_result.h"
#include "pipeline/torch_options.h"

struct salient_cancellation {
  salient::CancellationToken token;
};

namespace {

using namespace salient;

// In front of the version, so that it is found in the file without loading it: the Python package does.
constexpr char kTorchMark[] = "salient-torch-version: " SALIENT_TORCH_VERSION;
constexpr size_t kTorchMarkName = sizeof("salient-torch-version: ") - 1;

// This thread's last error and the texts that salient_last_error() points to.
struct LastError {
  std::string kind_name;
  std::string code;
  std::string message;
  std::string hint;
  salient_error view{SALIENT_OK, "", "", "", ""};

  void clear() { view = {SALIENT_OK, "", "", "", ""}; }
  void set(const Error& error) {
    kind_name = to_string(error.kind());
    code = error.code();
    message = error.message();
    hint = error.hint();
    view = {static_cast<int32_t>(error.kind()), kind_name.c_str(), code.c_str(), message.c_str(), hint.c_str()};
  }
};

LastError& last_error() {
  thread_local LastError error;
  return error;
}

// Runs `body`, keeps its error, returns the status. What cannot even be kept is reported by the status alone.
int32_t guarded(const std::function<void()>& body) noexcept {
  try {
    last_error().clear();
    body();
    return SALIENT_OK;
  } catch (...) {
    try {
      const Error error = pipeline::current_error();
      last_error().set(error);
      return static_cast<int32_t>(error.kind());
    } catch (...) {
      last_error().view = {SALIENT_IO, "input/output error", "OUT_OF_MEMORY", "out of memory", ""};
      return SALIENT_IO;
    }
  }
}

// What the caller knows of a struct; the rest is zero.
template <typename Struct>
Struct known_members(const Struct* given, const char* name) {
  Struct known{};
  known.struct_size = sizeof(Struct);
  if (given == nullptr) return known;
  if (given->struct_size < sizeof(size_t)) {
    throw Error(ErrorKind::kInvalidArgument,
                fmt::format("{}: struct_size is {}, expected its size, {}", name, given->struct_size, sizeof(Struct)))
        .with_hint(fmt::format("{} value = {{sizeof(value)}};", name));
  }
  std::memcpy(&known, given, std::min(given->struct_size, sizeof(Struct)));
  return known;
}

std::vector<std::string> texts(const char* const* given, size_t count, const char* name) {
  if (given == nullptr && count > 0) fail(ErrorKind::kInvalidArgument, "{}: NULL with a count of {}", name, count);
  std::vector<std::string> list;
  for (size_t i = 0; i < count; ++i) {
    if (given[i] == nullptr) fail(ErrorKind::kInvalidArgument, "{}[{}] is NULL, expected a text", name, i);
    list.emplace_back(given[i]);
  }
  return list;
}

char* copy_text(const std::string& text) {
  char* copy = static_cast<char*>(std::malloc(text.size() + 1));
  if (copy == nullptr) throw std::bad_alloc();
  std::memcpy(copy, text.c_str(), text.size() + 1);
  return copy;
}

std::timed_mutex work_mutex;
thread_local bool at_work = false;

// One piece of work: its turn, its token, where it tells, libtorch as it needs it.
class Work {
 public:
  explicit Work(const salient_callbacks* callbacks)
      : callbacks_(known_members(callbacks, "salient_callbacks")),
        turn_(take_turn(token())),
        cancellation_(token()),
        host_(make_host()),
        printing_(host_) {
    at_work = true;
  }
  ~Work() {
    at_work = false;
    set_log_level(LogLevel::kInfo);  // a command may have changed it
  }
  Work(const Work&) = delete;
  Work& operator=(const Work&) = delete;

  const std::string& result() const { return result_; }
  pipeline::RunObserver observer() const { return {host_.note, host_.progress}; }

 private:
  const CancellationToken& token() const { return callbacks_.cancellation == nullptr ? nobody_ : callbacks_.cancellation->token; }

  static std::unique_lock<std::timed_mutex> take_turn(const CancellationToken& token) {
    if (at_work) {
      throw Error(ErrorKind::kInvalidArgument, "work was asked for inside a callback of other work")
          .with_hint("start it when the call has returned");
    }
    const CancellationScope scope(token);
    std::unique_lock turn(work_mutex, std::defer_lock);
    do check_cancelled();
    while (!turn.try_lock_for(std::chrono::milliseconds(50)));
    return turn;
  }

  pipeline::CommandHost make_host() {
    return {[this](std::string_view text) { result_ += text; },
            [c = callbacks_](const std::string& line) {
              if (c.message != nullptr) c.message(c.user, line.c_str());
            },
            [c = callbacks_](const std::string& label, const std::string& unit, int64_t done, int64_t total) {
              if (c.progress != nullptr) c.progress(c.user, label.c_str(), unit.c_str(), done, total);
            }};
  }

  const CancellationToken nobody_;
  const salient_callbacks callbacks_;
  const std::unique_lock<std::timed_mutex> turn_;
  const CancellationScope cancellation_;
  std::string result_;
  const pipeline::CommandHost host_;
  const pipeline::CommandHostScope printing_;
  const pipeline::HostTorch torch_;
};

pipeline::RunConfig read_config(const salient_config* given) {
  if (given == nullptr) fail(ErrorKind::kInvalidArgument, "salient_run: config is NULL");
  const salient_config known = known_members(given, "salient_config");
  if ((known.path == nullptr) == (known.text == nullptr)) {
    fail(ErrorKind::kInvalidArgument, "salient_config: found {}, expected either path or text",
         known.path == nullptr ? "neither path nor text" : "both path and text");
  }
  const std::filesystem::path path = known.path == nullptr ? "" : known.path;
  ConfigNode root = known.path != nullptr ? ConfigNode::load(path) : ConfigNode::parse(known.text, "the configuration");
  for (const std::string& assignment : texts(known.overrides, known.override_count, "overrides")) root.apply_override(assignment);
  const std::string default_name = known.name != nullptr ? known.name : known.path != nullptr ? path.stem().string() : "run";
  return pipeline::parse_run_config(root, default_name);
}

}  // namespace

const char* salient_version(void) { return SALIENT_VERSION; }

int32_t salient_abi_version(void) { return SALIENT_ABI_VERSION; }

const char* salient_torch_version(void) { return kTorchMark + kTorchMarkName; }

salient_cancellation* salient_cancellation_new(void) {
  try {
    return new salient_cancellation;
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

void salient_cancel(salient_cancellation* cancellation) {
  if (cancellation != nullptr) cancellation->token.request();
}

void salient_cancellation_free(salient_cancellation* cancellation) { delete cancellation; }

int32_t salient_run(const salient_config* config, const salient_callbacks* callbacks, char** result) {
  if (result != nullptr) *result = nullptr;
  return guarded([&] {
    const pipeline::RunConfig parsed = read_config(config);
    const Work work(callbacks);
    set_log_level(LogLevel::kWarn);
    pipeline::set_threads(parsed.runtime.threads);
    const pipeline::RunPlan plan = pipeline::plan_run(parsed, work.observer());
    pipeline::Store store(parsed.store);
    const pipeline::RunReport report = pipeline::execute_run(store, plan, work.observer());
    if (result != nullptr) *result = copy_text(dump_json(pipeline::to_json(report), 2));
    pipeline::check_result(parsed, report);
  });
}

int32_t salient_command(const char* const* words, size_t count, const salient_callbacks* callbacks, char** output) {
  if (output != nullptr) *output = nullptr;
  return guarded([&] {
    std::string printed;
    std::exception_ptr failed;
    try {
      const std::vector<std::string> list = texts(words, count, "words");
      const Work work(callbacks);
      try {
        pipeline::run_words(list);
      } catch (...) {
        failed = std::current_exception();
      }
      printed = work.result();
    } catch (...) {
      failed = std::current_exception();
    }
    if (output != nullptr) *output = copy_text(printed);
    if (failed) std::rethrow_exception(failed);
  });
}

const salient_error* salient_last_error(void) { return &last_error().view; }

void salient_free(char* text) { std::free(text); }
