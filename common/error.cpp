#include "common/error.h"

namespace salient {

std::string_view to_string(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kInternal: return "internal error";
    case ErrorKind::kInvalidArgument: return "invalid argument";
    case ErrorKind::kNotFound: return "not found";
    case ErrorKind::kCorruption: return "corrupt data";
    case ErrorKind::kUnsupported: return "unsupported";
    case ErrorKind::kIo: return "input/output error";
    case ErrorKind::kCheckFailed: return "check failed";
    case ErrorKind::kCancelled: return "cancelled";
  }
  return "unknown";
}

Error::Error(ErrorKind kind, std::string message) : kind_(kind), message_(std::move(message)) {}

Error& Error::add_context(std::string_view where) {
  message_ = fmt::format("{}: {}", where, message_);
  return *this;
}

Error& Error::with_code(std::string_view code) {
  code_ = code;
  return *this;
}

Error& Error::with_hint(std::string_view hint) {
  hint_ = hint;
  return *this;
}

}  // namespace salient
