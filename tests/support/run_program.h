// Runs the built program as a user does: its own process, arguments, working folder; what it printed and how it ended. It can be
// killed at any moment, as a power cut or an impatient user would.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "support/folder_bytes.h"

namespace salient::test {

struct ProgramResult {
  int exit_code = -1;  // -1 when a signal ended it
  int signal = 0;
  bool timed_out = false;
  std::string out;
  std::string err;
  // By our own SIGKILL, because `kill_when` said so.
  bool killed = false;
};

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SALIENT_SANITIZED
#endif
#endif
#ifdef SALIENT_SANITIZED
inline constexpr int kProgramSeconds = 1800;  // programs with sanitizers are many times slower
#else
inline constexpr int kProgramSeconds = 120;
#endif

struct ProgramCall {
  std::vector<std::string> arguments;
  std::filesystem::path folder;                    // working folder
  std::map<std::string, std::string> environment;  // on top of this process's own
  // Asked about every half millisecond, with what the program has said on standard error so far: true sends SIGKILL at once.
  std::function<bool(const std::string& err)> kill_when;
  std::chrono::seconds timeout{kProgramSeconds};
  // As kill_when, but for SIGINT, once: what Ctrl-C sends.
  std::function<bool(const std::string& err)> interrupt_when = {};
  // What is run with `arguments`: its path. Another one may start the program itself.
  std::string program = SALIENT_PROGRAM;
};

namespace detail {

// Appends what is there; false at the end of the stream.
inline bool drain(int descriptor, std::string& into) {
  char buffer[1 << 14];
  for (;;) {
    const ssize_t count = ::read(descriptor, buffer, sizeof(buffer));
    if (count > 0) {
      into.append(buffer, static_cast<size_t>(count));
    } else if (count == 0) {
      return false;
    } else if (errno != EINTR) {
      return errno == EAGAIN;
    }
  }
}

struct Pipe {
  int ends[2];
  Pipe() {
    if (::pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("cannot make a pipe");
  }
};

}  // namespace detail

inline ProgramResult run_program(const ProgramCall& call) {
  // Everything that allocates happens before fork: libtorch may have threads in this process.
  std::vector<std::string> words = {call.program};
  words.insert(words.end(), call.arguments.begin(), call.arguments.end());
  std::map<std::string, std::string> variables;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    variables[text.substr(0, text.find('='))] = text.substr(text.find('=') + 1);
  }
  for (const auto& [name, value] : call.environment) variables[name] = value;
  std::vector<std::string> assignments;
  for (const auto& [name, value] : variables) assignments.push_back(name + "=" + value);
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  std::vector<char*> envp;
  for (std::string& assignment : assignments) envp.push_back(assignment.data());
  envp.push_back(nullptr);
  const std::string folder = call.folder.empty() ? "." : call.folder.string();

  const detail::Pipe out;
  const detail::Pipe err;
  const int nothing = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("cannot fork");
  if (child == 0) {
    ::dup2(nothing, STDIN_FILENO);
    ::dup2(out.ends[1], STDOUT_FILENO);
    ::dup2(err.ends[1], STDERR_FILENO);
    if (::chdir(folder.c_str()) == 0) ::execve(argv[0], argv.data(), envp.data());
    ::_exit(127);
  }
  ::close(nothing);
  ::close(out.ends[1]);
  ::close(err.ends[1]);
  pollfd waits[2] = {{out.ends[0], POLLIN, 0}, {err.ends[0], POLLIN, 0}};
  for (const pollfd& wait : waits) ::fcntl(wait.fd, F_SETFL, O_NONBLOCK);

  ProgramResult result;
  std::string* const texts[2] = {&result.out, &result.err};
  const auto started = std::chrono::steady_clock::now();
  bool interrupted = false;
  while (waits[0].fd >= 0 || waits[1].fd >= 0) {
    const timespec step{0, call.kill_when || call.interrupt_when ? 500'000 : 50'000'000};
    ::ppoll(waits, 2, &step, nullptr);
    for (int i = 0; i < 2; ++i) {
      if (waits[i].fd < 0 || detail::drain(waits[i].fd, *texts[i])) continue;
      ::close(waits[i].fd);
      waits[i].fd = -1;
    }
    if (result.killed || result.timed_out) continue;
    if (!interrupted && call.interrupt_when && call.interrupt_when(result.err)) {
      interrupted = true;
      ::kill(child, SIGINT);
    }
    result.killed = call.kill_when && call.kill_when(result.err);
    result.timed_out = std::chrono::steady_clock::now() - started > call.timeout;
    if (result.killed || result.timed_out) ::kill(child, SIGKILL);
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status)) result.exit_code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) result.signal = WTERMSIG(status);
  result.killed = result.killed && result.signal == SIGKILL;  // it may have ended by itself just before
  return result;
}

inline ProgramResult run_program(std::vector<std::string> arguments, const std::filesystem::path& folder,
                                 std::map<std::string, std::string> environment = {}) {
  return run_program(ProgramCall{std::move(arguments), folder, std::move(environment), {}, std::chrono::seconds(120)});
}

// For kill_when: `delay` after the first question, so after the start.
inline std::function<bool(const std::string&)> after(std::chrono::milliseconds delay) {
  return [started = std::chrono::steady_clock::now(), delay](const std::string&) {
    return std::chrono::steady_clock::now() - started >= delay;
  };
}

inline void write_text(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

}  // namespace salient::test
