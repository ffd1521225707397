// Starting a program that is linked with libtorch takes longer than what it does in these tests. So one is started, stops where its
// main would begin, and each of its forks goes on from there as a program that was started with other arguments: its own process,
// environment, working folder and output.
//
// SALIENT_PROGRAM_SERVER=DESCRIPTOR  A stream socket. A request is its length (uint32) and texts, each with a NUL behind it:
// working
//                                    folder, file for standard output, for standard error, most seconds, "NAME=value" ..., an empty
//                                    text, arguments. The answer is the status of waitpid (int32).
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "faults/fault_layer.h"

namespace salient::test {
namespace {

using Main = int (*)(int, char**, char**);

Main program_main = nullptr;

bool read_all(int socket, void* bytes, size_t size) {
  auto* at = static_cast<char*>(bytes);
  while (size > 0) {
    const ssize_t count = ::read(socket, at, size);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    at += count;
    size -= static_cast<size_t>(count);
  }
  return true;
}

void write_to(int descriptor, const std::string& file) {
  const int opened = ::open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (opened < 0 || ::dup2(opened, descriptor) < 0) ::_exit(127);
  ::close(opened);
}

// In the fork.
[[noreturn]] void be_program(char* name, const std::vector<std::string>& texts) {
  if (texts.size() < 5 || ::chdir(texts[0].c_str()) != 0) ::_exit(127);
  write_to(STDOUT_FILENO, texts[1]);
  write_to(STDERR_FILENO, texts[2]);
  ::alarm(static_cast<unsigned>(std::atoi(texts[3].c_str())));
  size_t next = 4;
  for (; next < texts.size() && !texts[next].empty(); ++next) {
    const size_t sign = texts[next].find('=');
    ::setenv(texts[next].substr(0, sign).c_str(), texts[next].c_str() + sign + 1, 1);
  }
  std::vector<char*> words = {name};
  for (++next; next < texts.size(); ++next) words.push_back(const_cast<char*>(texts[next].c_str()));
  words.push_back(nullptr);
  ::unsetenv("SALIENT_PROGRAM_SERVER");
  begin_faults();
  std::exit(program_main(static_cast<int>(words.size()) - 1, words.data(), environ));
}

[[noreturn]] void serve(int socket, char* name) {
  uint32_t length = 0;
  while (read_all(socket, &length, sizeof length)) {
    std::string request(length, '\0');
    if (!read_all(socket, request.data(), length)) break;
    std::vector<std::string> texts;
    for (size_t begin = 0; begin < request.size();) {
      texts.emplace_back(request.c_str() + begin);
      begin += texts.back().size() + 1;
    }
    const pid_t child = ::fork();
    if (child == 0) {
      ::close(socket);
      be_program(name, texts);
    }
    int status = 127 << 8;
    while (child > 0 && ::waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    const auto answer = static_cast<int32_t>(status);
    if (::write(socket, &answer, sizeof answer) != sizeof answer) break;
  }
  ::_exit(0);
}

int main_of_layer(int count, char** words, char** environment) {
  const char* socket = std::getenv("SALIENT_PROGRAM_SERVER");
  if (socket != nullptr) serve(std::atoi(socket), words[0]);
  begin_faults();
  return program_main(count, words, environment);
}

}  // namespace
}  // namespace salient::test

// What the program's entry point calls.
extern "C" int __libc_start_main(salient::test::Main main, int count, char** words, void (*init)(), void (*fini)(),
                                 void (*loader_fini)(), void* stack_end) {
  using Start = int (*)(salient::test::Main, int, char**, void (*)(), void (*)(), void (*)(), void*);
  salient::test::program_main = main;
  const auto start = reinterpret_cast<Start>(::dlsym(RTLD_NEXT, "__libc_start_main"));
  return start(salient::test::main_of_layer, count, words, init, fini, loader_fini, stack_end);
}
