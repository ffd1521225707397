#include "pipeline/rank_exchange.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>

#include <array>
#include <cstring>

#include "common/error.h"
#include "common/json.h"
#include "pipeline/quantize_progress.h"

namespace salient::pipeline {
namespace {

template <typename T>
std::span<T> values_of(at::Tensor& tensor) {
  return {tensor.data_ptr<T>(), static_cast<size_t>(tensor.numel())};
}

std::span<std::byte> bytes_of(const at::Tensor& tensor) {
  return {static_cast<std::byte*>(tensor.data_ptr()), static_cast<size_t>(tensor.nbytes())};
}

// A message: values one after the other, read in the order in which they were written. The ranks run one build on one kind of
// machine: numbers are as they lie in memory.
class Writer {
 public:
  void number(int64_t value) { raw(&value, sizeof(value)); }
  void real(double value) { raw(&value, sizeof(value)); }
  void text(std::string_view value) {
    number(static_cast<int64_t>(value.size()));
    raw(value.data(), value.size());
  }
  void head(const at::Tensor& tensor) {
    number(tensor.defined() ? 1 : 0);
    if (!tensor.defined()) return;
    number(static_cast<int64_t>(tensor.scalar_type()));
    number(tensor.dim());
    for (const int64_t size : tensor.sizes()) number(size);
  }
  void tensor(const at::Tensor& given) {
    const at::Tensor value = given.defined() ? given.cpu().contiguous() : given;
    head(value);
    if (value.defined()) raw(value.const_data_ptr(), static_cast<size_t>(value.nbytes()));
  }
  std::string bytes;

 private:
  void raw(const void* data, size_t size) { bytes.append(static_cast<const char*>(data), size); }
};

class Reader {
 public:
  explicit Reader(std::string_view bytes) : left_(bytes) {}
  int64_t number() { return value<int64_t>(); }
  double real() { return value<double>(); }
  std::string text() { return std::string(raw(static_cast<size_t>(number()))); }
  // Of the shape and dtype that follow, its values not set.
  at::Tensor head() {
    if (number() == 0) return {};
    const auto dtype = static_cast<at::ScalarType>(number());
    std::vector<int64_t> sizes(static_cast<size_t>(number()));
    for (int64_t& size : sizes) size = number();
    return at::empty(sizes, dtype);
  }
  at::Tensor tensor() {
    const at::Tensor result = head();
    if (!result.defined()) return result;
    const std::string_view data = raw(static_cast<size_t>(result.nbytes()));
    if (!data.empty()) std::memcpy(result.data_ptr(), data.data(), data.size());
    return result;
  }

 private:
  std::string_view raw(size_t size) {
    if (size > left_.size()) fail(ErrorKind::kInternal, "a message of another rank ends {} bytes early", size - left_.size());
    const std::string_view found = left_.substr(0, size);
    left_.remove_prefix(size);
    return found;
  }
  template <typename T>
  T value() {
    T result;
    std::memcpy(&result, raw(sizeof(T)).data(), sizeof(T));
    return result;
  }
  std::string_view left_;
};

}  // namespace

void sum_statistics(quant::InputStatistics& statistics, bool holds_back, Ranks& ranks) {
  if (holds_back && !statistics.held_gram.defined()) statistics.held_gram = at::zeros_like(statistics.gram);
  ranks.sum(values_of<float>(statistics.gram));
  if (holds_back) ranks.sum(values_of<float>(statistics.held_gram));
  ranks.sum(values_of<double>(statistics.abs_sum));
  std::array<int64_t, 3> counts = {statistics.rows, statistics.skipped_rows, statistics.held_rows};
  ranks.sum(std::span<int64_t>(counts));
  statistics.rows = counts[0];
  statistics.skipped_rows = counts[1];
  statistics.held_rows = counts[2];
}

void broadcast_tensor(at::Tensor& tensor, int from, Ranks& ranks) {
  Writer head;
  if (ranks.rank() == from) {
    if (tensor.defined()) tensor = tensor.contiguous();
    head.head(tensor);
  }
  ranks.broadcast(head.bytes, from);
  if (ranks.rank() != from) tensor = Reader(head.bytes).head();
  if (tensor.defined()) ranks.broadcast(bytes_of(tensor), from);
}

void broadcast_linear(models::FloatLinear& linear, int from, Ranks& ranks) {
  broadcast_tensor(linear.weight, from, ranks);
  broadcast_tensor(linear.bias, from, ranks);
}

void broadcast_found(std::optional<quant::ScaleSearchResult>& found, int from, Ranks& ranks) {
  Writer writer;
  if (ranks.rank() == from) {
    writer.number(found ? 1 : 0);
    if (found) {
      writer.tensor(found->scales);
      writer.real(found->rtn_error);
      writer.real(found->best_error);
      writer.text(found->kind);
      writer.real(found->ratio);
    }
  }
  ranks.broadcast(writer.bytes, from);
  if (ranks.rank() == from) return;
  Reader reader(writer.bytes);
  found.reset();
  if (reader.number() == 0) return;
  found.emplace();
  found->scales = reader.tensor();
  found->rtn_error = reader.real();
  found->best_error = reader.real();
  found->kind = reader.text();
  found->ratio = reader.real();
}

TensorSink RankParcel::sink(const TensorSink& like) {
  return {[this](const std::string& name, const at::Tensor& tensor) {
            puts_.push_back({name, -1, tensor});
          },
          [this](const std::string& name, int64_t index, const at::Tensor& tensor) {
            puts_.push_back({name, index, tensor});
          },
          like.found != nullptr ? &found_ : nullptr};
}

std::string RankParcel::bytes() const {
  Writer writer;
  writer.number(static_cast<int64_t>(puts_.size()));
  for (const Put& put : puts_) {
    writer.text(put.name);
    writer.number(put.part);
    writer.tensor(put.tensor);
  }
  writer.number(static_cast<int64_t>(found_.scales.size()));
  for (const auto& [name, scales] : found_.scales) {
    writer.text(name);
    writer.number(static_cast<int64_t>(scales.balance.size()));
    for (const std::string& module : scales.balance) writer.text(module);
    writer.text(scales.kind);
    writer.real(scales.ratio);
    writer.tensor(scales.scales);
  }
  writer.number(static_cast<int64_t>(found_.clips.size()));
  for (const auto& [name, clip] : found_.clips) {
    writer.text(name);
    for (const at::Tensor* tensor : {&clip.low, &clip.high, &clip.values, &clip.limit}) writer.tensor(*tensor);
  }
  writer.number(static_cast<int64_t>(reports.size()));
  for (const LinearReport& report : reports) writer.text(dump_json(to_json(report)));
  return std::move(writer.bytes);
}

void RankParcel::take(std::string_view bytes, const TensorSink& sink) {
  Reader reader(bytes);
  for (int64_t left = reader.number(); left > 0; --left) {
    const std::string name = reader.text();
    const int64_t part = reader.number();
    const at::Tensor tensor = reader.tensor();
    if (part < 0) {
      sink.put(name, tensor);
    } else {
      sink.put_part(name, part, tensor);
    }
  }
  for (int64_t left = reader.number(); left > 0; --left) {
    const std::string name = reader.text();
    FoundScales scales;
    for (int64_t modules = reader.number(); modules > 0; --modules) scales.balance.push_back(reader.text());
    scales.kind = reader.text();
    scales.ratio = reader.real();
    scales.scales = reader.tensor();
    if (sink.found != nullptr) sink.found->scales[name] = std::move(scales);
  }
  for (int64_t left = reader.number(); left > 0; --left) {
    const std::string name = reader.text();
    FoundClip clip;
    for (at::Tensor* tensor : {&clip.low, &clip.high, &clip.values, &clip.limit}) *tensor = reader.tensor();
    if (sink.found != nullptr) sink.found->clips[name] = std::move(clip);
  }
  reports.clear();
  for (int64_t left = reader.number(); left > 0; --left)
    reports.push_back(linear_report_from_json(parse_json(reader.text(), "a report of another rank"), "a report of another rank"));
}

void RankParcel::hand_over(int from, const TensorSink& sink, Ranks& ranks) {
  if (from == 0) return;
  std::string message;
  if (ranks.rank() == from) {
    message = bytes();
    puts_.clear();
  }
  ranks.send(message, from, 0);
  if (ranks.is_root()) take(message, sink);
}

}  // namespace salient::pipeline
