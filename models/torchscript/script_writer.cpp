#include "models/torchscript/script_writer.h"

#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/serialization/export.h>

#include <exception>
#include <memory>
#include <new>
#include <span>

#include "common/error.h"
#include "common/file.h"

namespace salient::models {
namespace {

namespace jit = torch::jit;

// Makes modules; nodes of one kind get one class.
class Compiler {
 public:
  jit::Module make(const ScriptNode& node) {
    std::vector<jit::Module> children;
    std::string key = node.kind + "\n" + node.source;
    for (const auto& [name, tensor] : node.buffers) key += "\n" + name;
    for (const auto& [name, child] : node.children) {
      children.push_back(make(child));
      key += fmt::format("\n{}: {}", name, children.back().type()->name()->qualifiedName());
    }
    c10::ClassTypePtr& type = types_[key];
    const bool is_new = type == nullptr;
    if (is_new) type = declare(node, children);
    jit::Module module(unit_, type);
    module.setattr("training", false);
    for (const auto& [name, tensor] : node.buffers) module.setattr(name, tensor);
    for (size_t i = 0; i < children.size(); ++i) module.setattr(node.children[i].name, children[i]._ivalue());
    if (is_new) {
      try {
        module.define(node.source);
      } catch (const std::bad_alloc&) {
        throw;
      } catch (const std::exception& error) {
        fail(ErrorKind::kInternal, "the TorchScript of class {} does not compile: {}", node.kind, error.what());
      }
    }
    return module;
  }

 private:
  c10::ClassTypePtr declare(const ScriptNode& node, const std::vector<jit::Module>& children) {
    const int number = numbers_[node.kind]++;
    const c10::QualifiedName name(fmt::format("__torch__.salient.{}{}", node.kind, number == 0 ? "" : std::to_string(number)));
    c10::ClassTypePtr type = c10::ClassType::create(name, unit_, /*is_module=*/true);
    unit_->register_type(type);
    type->addAttribute("training", c10::BoolType::get());
    for (const auto& [buffer, tensor] : node.buffers)
      type->addAttribute(buffer, c10::TensorType::get(), /*is_parameter=*/false, /*is_buffer=*/true);
    for (size_t i = 0; i < children.size(); ++i) type->addAttribute(node.children[i].name, children[i].type());
    return type;
  }

  std::shared_ptr<jit::CompilationUnit> unit_ = std::make_shared<jit::CompilationUnit>();
  std::map<std::string, c10::ClassTypePtr> types_;
  std::map<std::string, int> numbers_;
};

}  // namespace

void write_torchscript(const std::filesystem::path& path, const ScriptNode& node,
                       const std::map<std::string, std::string>& extra_files) {
  const jit::Module module = Compiler().make(node);
  AtomicFile file(path);
  // Told when libtorch has ended its file: its writer does that in a destructor too, where a second error would end the process.
  std::exception_ptr failure;
  jit::ExportModule(
      module,
      [&](const void* data, size_t size) {
        try {
          if (!failure) file.write(std::span(static_cast<const std::byte*>(data), size));
        } catch (...) {
          failure = std::current_exception();
        }
        return size;
      },
      jit::ExtraFilesMap(extra_files.begin(), extra_files.end()));
  if (failure) std::rethrow_exception(failure);
  file.commit();
}

}  // namespace salient::models
