#include "pipeline/current_error.h"

#include <c10/util/Exception.h>

#include <cstdio>
#include <filesystem>
#include <new>
#include <system_error>

#include "common/text.h"
#include "quant/out_of_memory.h"

namespace salient::pipeline {
namespace {

// What libtorch throws has a back trace behind its first line.
Error from_torch(const c10::Error& error) {
  const std::string text = one_line(first_line(error.what_without_backtrace()));
  if (quant::is_out_of_memory(error)) {
    return Error(ErrorKind::kIo, text)
        .with_code("CUDA_OUT_OF_MEMORY")
        .with_hint("use fewer tokens at a time (--batch-tokens; evaluation.batch_tokens of a config), or the device cpu");
  }
  if (text.find("no kernel image") != std::string::npos || text.find("Could not run") != std::string::npos) {
    return Error(ErrorKind::kUnsupported, text)
        .with_code("KERNEL_NOT_FOUND")
        .with_hint("this libtorch has no such operator for the device; try --device cpu");
  }
  if (text.find("can't allocate memory") != std::string::npos || text.find("allocation failed") != std::string::npos) {
    return Error(ErrorKind::kIo, text)
        .with_code("OUT_OF_MEMORY")
        .with_hint("use fewer tokens at a time (--batch-tokens) or a machine with more memory");
  }
  return Error(ErrorKind::kInternal, text);
}

// What std::filesystem throws where nobody translated it: the operating system refused.
Error from_filesystem(const std::filesystem::filesystem_error& error) {
  const std::string where =
      error.path2().empty() ? error.path1().string() : error.path1().string() + " -> " + error.path2().string();
  const std::string text = fmt::format("{}: {}", where, error.code().message());
  if (error.code() == std::errc::no_such_file_or_directory) return Error(ErrorKind::kNotFound, text);
  Error translated(ErrorKind::kIo, text);
  if (error.code() == std::errc::no_space_on_device)
    translated.with_code("DISK_FULL").with_hint("free some space and give the same command again");
  return translated;
}

}  // namespace

Error current_error() {
  try {
    throw;
  } catch (const Error& error) {
    return error;
  } catch (const c10::Error& error) {
    return from_torch(error);
  } catch (const std::filesystem::filesystem_error& error) {
    return from_filesystem(error);
  } catch (const std::bad_alloc&) {
    return Error(ErrorKind::kIo, "out of memory")
        .with_code("OUT_OF_MEMORY")
        .with_hint("use fewer tokens at a time (--batch-tokens; evaluation.batch_tokens of a config)");
  } catch (const std::exception& error) {
    return Error(ErrorKind::kInternal, error.what()).with_hint("this is a defect of Salient; please report the command");
  } catch (...) {
    return Error(ErrorKind::kInternal, "something was thrown that is no exception")
        .with_hint("this is a defect of Salient; please report the command");
  }
}

std::string line_of(const Error& error) {
  return fmt::format("{}{}{}", error.code().empty() ? "" : fmt::format("[{}] ", error.code()), error.message(),
                     error.hint().empty() ? "" : fmt::format(" (hint: {})", error.hint()));
}

void print_error(const Error& error) {
  const std::string code = error.code().empty() ? "" : fmt::format(" [{}]", error.code());
  std::fprintf(stderr, "salient: %s%s: %s\n", std::string(to_string(error.kind())).c_str(), code.c_str(), error.message().c_str());
  if (!error.hint().empty()) std::fprintf(stderr, "  hint: %s\n", error.hint().c_str());
}

}  // namespace salient::pipeline
