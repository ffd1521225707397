#include "models/text/token_decoder.h"

#include <charconv>
#include <optional>
#include <utility>

#include "models/text/byte_level.h"
#include "models/text/metaspace.h"
#include "models/text/part_table.h"
#include "models/text/text_pattern.h"
#include "models/text/utf8.h"

namespace salient::models {
namespace {

using Tokens = std::vector<std::string>;
using Steps = std::vector<TokenDecoder::Step>;
using Make = void (*)(const Json&, std::string_view, Steps&);

void add_part(const Json& part, std::string_view where, Steps& steps);

std::string replaced(std::string_view text, const std::vector<TextRange>& matches, std::string_view content) {
  std::string out;
  size_t done = 0;
  for (const TextRange& match : matches) {
    out.append(text.substr(done, match.begin - done));
    out += content;
    done = match.end;
  }
  out.append(text.substr(done));
  return out;
}

// The bytes that a token of GPT-2's alphabet stands for; nothing when it holds another character.
std::optional<std::string> alphabet_bytes(std::string_view token) {
  std::string bytes;
  for (size_t i = 0; i < token.size();) {
    const auto byte = character_to_byte(next_code_point(token, i));
    if (!byte) return std::nullopt;
    bytes += static_cast<char>(*byte);
  }
  return bytes;
}

void make_byte_level(const Json&, std::string_view, Steps& steps) {
  steps.push_back([](Tokens& tokens) {
    std::string bytes;
    for (const std::string& token : tokens) bytes += alphabet_bytes(token).value_or(token);
    tokens = {repair_utf8(bytes)};
  });
}

// "<0xE2>" is 0xE2.
std::optional<char> fallback_byte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return std::nullopt;
  // Rust's from_str_radix takes a sign as well.
  const size_t sign = token[3] == '+' ? 1 : 0;
  unsigned value = 0;
  const char* end = token.data() + 5;
  const auto result = std::from_chars(token.data() + 3 + sign, end, value, 16);
  if (result.ec != std::errc() || result.ptr != end) return std::nullopt;
  return static_cast<char>(value);
}

void make_byte_fallback(const Json&, std::string_view, Steps& steps) {
  steps.push_back([](Tokens& tokens) {
    Tokens out;
    std::string bytes;
    const auto flush = [&] {
      if (is_valid_utf8(bytes)) {
        if (!bytes.empty()) out.push_back(bytes);
      } else {
        out.insert(out.end(), bytes.size(), "\xEF\xBF\xBD");  // the whole run, one for each byte
      }
      bytes.clear();
    };
    for (std::string& token : tokens) {
      if (const auto byte = fallback_byte(token)) {
        bytes += *byte;
      } else {
        flush();
        out.push_back(std::move(token));
      }
    }
    flush();
    tokens = std::move(out);
  });
}

void make_metaspace(const Json& part, std::string_view where, Steps& steps) {
  steps.push_back([metaspace = Metaspace::from_json(part, where)](Tokens& tokens) {
    for (size_t i = 0; i < tokens.size(); ++i) {
      const bool drop = i == 0 && metaspace.prepend != PrependScheme::kNever;
      std::string out;
      for (size_t at = 0; at < tokens[i].size();) {
        const char32_t code = next_code_point(tokens[i], at);
        if (code != metaspace.replacement) {
          append_utf8(out, code);
        } else if (!drop) {
          out += ' ';
        }
      }
      tokens[i] = std::move(out);
    }
  });
}

void make_replace(const Json& part, std::string_view where, Steps& steps) {
  steps.push_back([pattern = TextPattern::from_json(part, "pattern", where),
                   content = require<std::string>(part, "content", where)](Tokens& tokens) {
    for (std::string& token : tokens) {
      if (const auto matches = pattern.find_all(token); !matches.empty()) token = replaced(token, matches, content);
    }
  });
}

void make_fuse(const Json&, std::string_view, Steps& steps) {
  steps.push_back([](Tokens& tokens) {
    std::string joined;
    for (const std::string& token : tokens) joined += token;
    tokens = {std::move(joined)};
  });
}

void make_strip(const Json& part, std::string_view where, Steps& steps) {
  std::string content;
  append_utf8(content, require_character(part, "content", where));
  const auto start = require<int64_t>(part, "start", where);
  const auto stop = require<int64_t>(part, "stop", where);
  steps.push_back([content, start, stop](Tokens& tokens) {
    for (std::string& token : tokens) {
      for (int64_t i = 0; i < start && token.starts_with(content); ++i) token.erase(0, content.size());
      for (int64_t i = 0; i < stop && token.ends_with(content); ++i) token.erase(token.size() - content.size());
    }
  });
}

void make_bpe(const Json& part, std::string_view where, Steps& steps) {
  steps.push_back([suffix = value_or<std::string>(part, "suffix", "</w>", where)](Tokens& tokens) {
    if (suffix.empty()) return;
    for (size_t i = 0; i < tokens.size(); ++i) {
      std::vector<TextRange> matches;
      for (size_t at = tokens[i].find(suffix); at != std::string::npos; at = tokens[i].find(suffix, at + suffix.size())) {
        matches.push_back({at, at + suffix.size()});
      }
      tokens[i] = replaced(tokens[i], matches, i + 1 == tokens.size() ? "" : " ");
    }
  });
}

void make_sequence(const Json& part, std::string_view where, Steps& steps) {
  const Json list = require_list(part, "decoders", where);
  for (size_t i = 0; i < list.size(); ++i) add_part(list[i], element_name(where, "decoders", i), steps);
}

constexpr PartKind<Make> kKinds[] = {
    {"ByteLevel", make_byte_level},
    {"ByteFallback", make_byte_fallback},
    {"Metaspace", make_metaspace},
    {"Replace", make_replace},
    {"Fuse", make_fuse},
    {"Strip", make_strip},
    {"BPEDecoder", make_bpe},
    {"Sequence", make_sequence},
    {"WordPiece", nullptr},
    {"CTC", nullptr},
};

void add_part(const Json& part, std::string_view where, Steps& steps) {
  find_part<Make>(part, kKinds, "decoder", where)(part, where, steps);
}

}  // namespace

TokenDecoder TokenDecoder::from_json(const Json& part, std::string_view where) {
  TokenDecoder decoder;
  decoder.present_ = !part.is_null();
  if (decoder.present_) add_part(part, where, decoder.steps_);
  return decoder;
}

std::string TokenDecoder::decode(std::vector<std::string> tokens) const {
  for (const Step& step : steps_) step(tokens);
  std::string text;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (i > 0 && !present_) text += ' ';
    text += tokens[i];
  }
  return text;
}

}  // namespace salient::models
