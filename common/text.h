// Text for people: near misses, byte counts, durations, widths on a terminal.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace salient {

// Edits between the first 256 bytes of two strings (longer names are hostile): insertion, deletion, replacement, exchange of two
// neighbours; no part is edited twice (the optimal string alignment form of the Damerau-Levenshtein distance).
size_t edit_distance(std::string_view a, std::string_view b);

// The candidate nearest to `word`, letter case counting half an edit; nothing when none is within a third of the word's length (at
// least one edit). Of equally near candidates the first.
std::optional<std::string> nearest_match(std::string_view word, std::span<const std::string> candidates);
// "; did you mean 'group_size'?", or an empty string: to stand at the end of an error text.
std::string did_you_mean(std::string_view word, std::span<const std::string> candidates);
// "'a', 'b' or 'c'"; empty for an empty list.
std::string list_choices(std::span<const std::string> choices);

// "0 B", "512 B", "1.2 GiB": powers of 1024, one digit behind the point from KiB on.
std::string human_bytes(uint64_t bytes);
// The inverse for what people write: "5GB" (powers of 1000), "5GiB" (powers of 1024), "1.5 MB", "4096". Nothing when it is no size.
std::optional<uint64_t> parse_bytes(std::string_view text);
// "0.4s", "12s", "1m 05s", "2h 03m", "3d 04h". Negative, NaN or infinite seconds: "?".
std::string human_duration(double seconds);

// Columns that a UTF-8 text takes on a terminal: East Asian wide characters and emoji two, combining marks and control characters
// none. An invalid byte counts one.
size_t display_width(std::string_view text);
// The text when it fits into `width` columns, else its beginning and "…"; cuts between characters. Width 0 gives an empty string.
std::string shorten(std::string_view text, size_t width);
// Control characters (line ends, escapes) become spaces: for texts of others that are printed in one line.
std::string one_line(std::string_view text);
// What stands before the first line break.
std::string_view first_line(std::string_view text);

// Parts between separators; empty parts are kept: split("a..b", '.') = {"a", "", "b"}.
std::vector<std::string> split(std::string_view text, char separator);

// ASCII letters in upper or lower case, everything else as it is.
std::string to_upper(std::string text);
std::string to_lower(std::string text);

// Whether there is nothing but ASCII white space.
bool is_blank(std::string_view text);

}  // namespace salient
