#include "wire/json_syntax.h"

#include <string>
#include <utility>

#include "base/utf8.h"

namespace mindserve::wire {
namespace {

bool IsDigit(char c) {
  return c >= '0' && c <= '9';
}

// How many digits `text` begins with.
size_t Digits(std::string_view text) {
  size_t count = 0;
  while (count < text.size() && IsDigit(text[count])) ++count;
  return count;
}

JsonKind KindOfNumber(std::string_view token) {
  if (token.starts_with('-')) token.remove_prefix(1);
  const size_t whole = Digits(token);
  if (whole == 0 || (whole > 1 && token[0] == '0')) return JsonKind::kIllegal;
  token.remove_prefix(whole);
  if (token.empty()) return JsonKind::kInteger;
  if (token.starts_with('.')) {
    const size_t fraction = Digits(token.substr(1));
    if (fraction == 0) return JsonKind::kIllegal;
    token.remove_prefix(1 + fraction);
  }
  if (token.starts_with('e') || token.starts_with('E')) {
    token.remove_prefix(1);
    if (token.starts_with('+') || token.starts_with('-')) token.remove_prefix(1);
    if (const size_t exponent = Digits(token); exponent > 0)
      token.remove_prefix(exponent);
    else
      return JsonKind::kIllegal;
  }
  return token.empty() ? JsonKind::kFloat : JsonKind::kIllegal;
}

std::string_view WithoutSpace(std::string_view text) {
  // npos + 1 is 0.
  return text.substr(0, text.find_last_not_of(" \t\r\n") + 1);
}

Status Superfluous() {
  return IllegalJson("something comes after the end of the value");
}

Status CheckDepth(size_t depth) {
  if (depth < kMaxJsonDepth) return Status::Ok();
  return {Code::kOutOfRange,
          "the JSON text has more than " + std::to_string(kMaxJsonDepth) + " arrays and objects in each other"};
}

Status CheckArray(ondemand::array& array, size_t depth) {
  MS_RETURN_IF_ERROR(CheckDepth(depth));
  for (auto result : array) {
    ondemand::value value;
    if (const auto error = std::move(result).get(value)) return IllegalJson(error);
    MS_RETURN_IF_ERROR(CheckValue(value, depth + 1));
  }
  return Status::Ok();
}

Status CheckObject(ondemand::object& object, size_t depth) {
  MS_RETURN_IF_ERROR(CheckDepth(depth));
  for (auto result : object) {
    ondemand::field field;
    if (const auto error = std::move(result).get(field)) return IllegalJson(error);
    if (const auto error = field.unescaped_key().error()) return IllegalJson(error);
    MS_RETURN_IF_ERROR(CheckValue(field.value(), depth + 1));
  }
  return Status::Ok();
}

}  // namespace

std::string_view Token(ondemand::value& value) {
  return WithoutSpace(value.raw_json_token());
}

JsonKind KindOf(std::string_view token) {
  if (token.empty()) return JsonKind::kIllegal;
  switch (token[0]) {
    case '{':
      return JsonKind::kObject;
    case '[':
      return JsonKind::kArray;
    case '"':
      return token.size() >= 2 && token.back() == '"' ? JsonKind::kString : JsonKind::kIllegal;
    case 't':
      return token == "true" ? JsonKind::kBool : JsonKind::kIllegal;
    case 'f':
      return token == "false" ? JsonKind::kBool : JsonKind::kIllegal;
    case 'n':
      return token == "null" ? JsonKind::kNull : JsonKind::kIllegal;
    default:
      return KindOfNumber(token);
  }
}

bool ReadText(ondemand::value& value, std::string_view* text) {
  // The quotes were found, the characters and their encoding checked, when the document was begun. What is left are
  // escapes; without any, the text is used where it lies, however long it is.
  *text = Token(value);
  text->remove_prefix(1);
  text->remove_suffix(1);
  return text->find('\\') == std::string_view::npos || value.get_string().get(*text) == simdjson::SUCCESS;
}

std::string Excerpt(std::string_view text) {
  constexpr size_t kMost = 64;
  return text.size() <= kMost ? std::string(text) : std::string(CutUtf8(text, kMost)) + "…";
}

Status IllegalJson(std::string_view what) {
  return {Code::kInvalidArgument, "Illegal JSON format: " + std::string(what)};
}

Status IllegalJson(simdjson::error_code error) {
  switch (error) {
    case simdjson::MEMALLOC:
    case simdjson::CAPACITY:
      return {Code::kResourceExhausted, "there is not enough memory to read the JSON text"};
    case simdjson::EMPTY:
      return IllegalJson("there is no text");
    case simdjson::UTF8_ERROR:
      return IllegalJson("the text is not valid UTF-8");
    case simdjson::UNCLOSED_STRING:
      return IllegalJson("the text ends within a string");
    case simdjson::UNESCAPED_CHARS:
      return IllegalJson("a string holds a control character that is not escaped");
    case simdjson::STRING_ERROR:
      return IllegalJson("a string has a wrong escape");
    default:
      return IllegalJson("a bracket, comma, colon, key or value is missing, superfluous or misspelt");
  }
}

Status IllegalToken(std::string_view token) {
  for (std::string_view name : {"NaN", "-NaN", "nan", "-nan", "Infinity", "-Infinity", "inf", "-inf"}) {
    if (token != name) continue;
    return IllegalJson(std::string(name) +
                       " is no JSON; send such values as {\"b64\": …, \"type\": \"float32\", \"shape\": […]}");
  }
  return IllegalJson("'" + Excerpt(token) + "' is no value");
}

Status TooLarge(std::string_view token, std::string_view type) {
  return {Code::kOutOfRange, "the number " + Excerpt(token) + " does not fit " + std::string(type) +
                                 "; send larger types as {\"b64\": …, \"type\": …, \"shape\": […]}"};
}

Status CheckValue(ondemand::value& value, size_t depth) {
  const std::string_view token = Token(value);
  switch (KindOf(token)) {
    case JsonKind::kObject: {
      ondemand::object object;
      if (const auto error = value.get_object().get(object)) return IllegalJson(error);
      return CheckObject(object, depth);
    }
    case JsonKind::kArray: {
      ondemand::array array;
      if (const auto error = value.get_array().get(array)) return IllegalJson(error);
      return CheckArray(array, depth);
    }
    case JsonKind::kString: {
      std::string_view text;
      return ReadText(value, &text) ? Status::Ok() : IllegalJson(simdjson::STRING_ERROR);
    }
    case JsonKind::kIllegal:
      return IllegalToken(token);
    default:
      return Status::Ok();
  }
}

Status CheckDocument(ondemand::document& document, std::string_view text) {
  std::string_view token;
  if (const auto error = document.raw_json_token().get(token)) return IllegalJson(error);
  if (token.starts_with('{')) {
    ondemand::object object;
    if (const auto error = document.get_object().get(object)) return IllegalJson(error);
    MS_RETURN_IF_ERROR(CheckObject(object, 0));
  } else if (token.starts_with('[')) {
    ondemand::array array;
    if (const auto error = document.get_array().get(array)) return IllegalJson(error);
    MS_RETURN_IF_ERROR(CheckArray(array, 0));
  } else {
    token = WithoutSpace(token);
    if (KindOf(token) == JsonKind::kIllegal) return IllegalToken(token);
    if (const auto error = token.starts_with('"') ? document.get_string().error() : simdjson::SUCCESS) {
      return IllegalJson(error);
    }
    return token.end() == WithoutSpace(text).end() ? Status::Ok() : Superfluous();
  }
  return CheckEnd(document);
}

Status CheckEnd(ondemand::document& document) {
  // Behind the last token there is no location.
  return document.current_location().error() == simdjson::OUT_OF_BOUNDS ? Status::Ok() : Superfluous();
}

}  // namespace mindserve::wire
