// Logging facade over spdlog. Messages have stable key=value parts: log_info("block_done index={} seconds={:.2f}", i, s).
// Logs go to standard error; results never only to a log.
#pragma once

#include <fmt/format.h>

#include <string_view>
#include <utility>

namespace salient {

enum class LogLevel { kDebug, kInfo, kWarn, kError, kOff };

// "debug", "info", "warn", "error" or "off". Errors: invalid argument.
LogLevel parse_log_level(std::string_view name);
// Default before the first call: info.
void set_log_level(LogLevel level);
void log_message(LogLevel level, std::string_view text);

template <typename... Args>
void log_debug(fmt::format_string<Args...> format, Args&&... args) {
  log_message(LogLevel::kDebug, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  log_message(LogLevel::kInfo, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void log_warn(fmt::format_string<Args...> format, Args&&... args) {
  log_message(LogLevel::kWarn, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace salient
