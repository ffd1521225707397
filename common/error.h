// The one exception type of the project.
//
// An error says where it happened, what was found, what was expected and what to do. Kinds are stable: the command line maps each
// to an exit code. Errors that users search for also carry a stable code such as CUDA_OUT_OF_MEMORY.
#pragma once

#include <fmt/format.h>

#include <exception>
#include <string>
#include <string_view>
#include <utility>

namespace salient {

// Values are exit codes of the command line and part of its contract: never change an existing one.
enum class ErrorKind {
  kInternal = 1,         // a defect of this program
  kInvalidArgument = 2,  // the caller asked for something impossible: a bad flag, config key or value
  kNotFound = 3,         // a file, model, tensor or row that should be there is not
  kCorruption = 4,       // data that is there but broken: truncated, overlapping, NaN, malformed
  kUnsupported = 5,      // well-formed, but not implemented here
  kIo = 6,               // the operating system refused: full disk, permissions
  kCheckFailed = 7,      // the work was done, but its result misses a bound that was asked for
  kCancelled = 8,        // stopped because the user asked for it (common/cancellation.h); what was done is kept
};

std::string_view to_string(ErrorKind kind);

class Error : public std::exception {
 public:
  Error(ErrorKind kind, std::string message);

  // Puts "where" in front of the message: "models/demo/config.json: rope_theta: ...". Returns *this, to rethrow.
  Error& add_context(std::string_view where);
  // A stable, searchable code in upper case, e.g. "SALIENT_DETECTION_FAILED". Empty when there is none.
  Error& with_code(std::string_view code);
  // What the user can do about it; printed on a line of its own.
  Error& with_hint(std::string_view hint);

  ErrorKind kind() const { return kind_; }
  const std::string& message() const { return message_; }
  const std::string& code() const { return code_; }
  const std::string& hint() const { return hint_; }
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  ErrorKind kind_;
  std::string message_;
  std::string code_;
  std::string hint_;
};

// Throws Error(kind, fmt::format(...)). For a code or hint: throw Error(kind, fmt::format(...)).with_hint(...).
template <typename... Args>
[[noreturn]] void fail(ErrorKind kind, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(kind, fmt::format(format, std::forward<Args>(args)...));
}

// Runs `body`; an Error that leaves it gets `where` as context.
template <typename Body>
auto with_context(std::string_view where, Body&& body) -> decltype(body()) {
  try {
    return body();
  } catch (Error& error) {
    error.add_context(where);
    throw;
  }
}

}  // namespace salient
