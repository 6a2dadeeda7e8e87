r"""This file says where a request's unit stands, and gives one to who brings none: a script in the gateway.

Rules. Who brings the unit in a header meets no script. For all else the script runs on the one route that has said
where to look, puts what it found into the header that is split by, notes that it did so where no client can, and has
the request matched again. Where nothing is found it is the gateway's own cookie, and else a new one. A unit has at most
200 bytes and neither comma nor control characters: two headers arrive as one with a comma, and a line break that stood
in a token (`\u000a`) must never become one of a request.
"""

from __future__ import annotations

import re

from branchline.adapters.envoy_documents import COOKIE, Document, typed
from branchline.core.spec import UNIT, UNIT_HEADER, Unit

SCRIPT = "envoy.filters.http.lua"
# More than one, or one of more than 200 bytes. Each change of routes compiles this anew for every service, and a class
# of characters would take ten times as many instructions as one of bytes.
_NONE = r"\C*,\C*|\C{201}\C*"
_PLACE = "{unit}"


def header_of(unit: Unit) -> str:
    """The request header that is split by: the service's own, or the one that the script fills."""
    return unit.name if unit.kind == "header" else UNIT_HEADER


def brought(unit: Unit) -> Document:
    """What matches a request whose unit stands in that header, once those are refused where it is unusable."""
    if unit.kind == "header":
        said = {"string_match": {"exact": ""}, "invert_match": True, "treat_missing_header_as_empty": True}
        return {"headers": [{"name": unit.name, **said}]}
    noted = {"filter": "branchline", "path": [{"key": "unit"}], "value": {"present_match": True}}
    return {"dynamic_metadata": [noted]}


def unusable(header: str) -> Document:
    """What matches a request that says in a client's own header that it is for something that is no unit."""
    return {"name": header, "string_match": {"safe_regex": {"regex": _NONE}}}


def sought(unit: Unit, prefix: str) -> Document:
    """What a route says to the script: where to look; a path begins with what the gateway will take off."""
    told: dict[str, str] = {}
    if unit.kind != "header":
        told[unit.kind] = _begins(prefix, unit) if unit.kind == "path" else unit.name
    elif unit != UNIT:
        told["header"] = unit.name
    metadata: Document = {"metadata": {"filter_metadata": {SCRIPT: told}}} if told else {}
    return {**metadata, "typed_per_filter_config": {SCRIPT: typed("config.route.v3.FilterConfig", config={})}}


def _begins(prefix: str, unit: Unit) -> str:
    """A pattern of Lua for paths with a slash behind them."""
    before, _, after = unit.name.rstrip("/").partition(_PLACE)
    return f"^{_literally(prefix + before)}([^/]+){_literally(after)}/"


def _literally(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9/]", r"%\g<0>", text)


FIND = rf"""
local ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

local function in_cookie(headers, name)
  local pattern = ";%s*" .. name:gsub("%p", "%%%0") .. "=([^;,%s]+)"
  for place = 0, headers:getNumValues("cookie") - 1 do
    local found = (";" .. headers:getAtIndex("cookie", place)):match(pattern)
    if found then return found end
  end
end

local function decoded(text)
  local bytes, bits, size = {{}}, 0, 0
  for char in text:gmatch("[%w_-]") do
    bits, size = bits * 64 + ALPHABET:find(char, 1, true) - 1, size + 6
    if size >= 8 then
      size = size - 8
      bytes[#bytes + 1] = string.char(math.floor(bits / 2 ^ size))
      bits = bits % 2 ^ size
    end
  end
  return table.concat(bytes)
end

local function character(hex)
  local code, floor = tonumber(hex, 16), math.floor
  if code < 0x80 then return string.char(code) end
  if code < 0x800 then return string.char(0xC0 + floor(code / 64), 0x80 + code % 64) end
  if code >= 0xD800 and code < 0xE000 then return nil end
  return string.char(0xE0 + floor(code / 4096), 0x80 + floor(code / 64) % 64, 0x80 + code % 64)
end

-- Of a JSON object, what stands under a name: texts are taken out first, so that no brace or comma is of a text.
local function under(json, name)
  local texts, found = {{}}, nil
  json = json:gsub("%c", " "):gsub('\\[\\"]', {{['\\\\'] = "\1", ['\\"'] = "\2"}})
  json = json:gsub('"([^"]*)"', function(text)
    texts[#texts + 1] = text
    return "<" .. #texts .. ">"
  end)
  json = (json:match("^%s*{{(.*)}}%s*$") or ""):gsub("%b{{}}", ""):gsub("%b[]", "")
  for key, value in json:gmatch("<(%d+)>%s*:%s*([^,%s]*)") do
    if texts[tonumber(key)] == name then found = value end
  end
  if found == nil then return nil end
  local text = texts[tonumber(found:match("^<(%d+)>$"))]
  if text == nil then return found:match("^-?%d+$") end
  text = text:gsub("\\/", "/"):gsub("\\u(%x%x%x%x)", character)
  if text:find("\\", 1, true) then return nil end
  return (text:gsub("[\1\2]", {{["\1"] = "\\", ["\2"] = '"'}}))
end

local function in_token(headers, name)
  local token = headers:get("authorization") or ""
  local claims = token:match("^[Bb]earer +[%w_-]+%.([%w_-]+)%.[%w_-]*$")
  return claims and under(decoded(claims), name)
end

local function usable(unit)
  return unit and #unit > 0 and #unit <= 200 and not unit:find("[%c,]") and unit or nil
end

function envoy_on_request(handle)
  local told, headers, unit = handle:metadata(), handle:headers(), nil
  local header, cookie, path, claim = told:get("header"), told:get("cookie"), told:get("path"), told:get("claim")
  header = header or "{UNIT_HEADER}"
  if cookie then unit = in_cookie(headers, cookie) end
  if path then unit = (headers:get(":path"):match("^[^?#]*") .. "/"):match(path) end
  if claim then unit = in_token(headers, claim) end
  unit = usable(unit) or usable(in_cookie(headers, "{COOKIE}"))
  local kept = handle:streamInfo():dynamicMetadata()
  if unit == nil then
    unit = headers:get("x-request-id")
    kept:set("branchline", "minted", unit)
  end
  headers:replace(header, unit)
  kept:set("branchline", "unit", unit)
  handle:clearRouteCache()
end

function envoy_on_response(handle)
  local kept = handle:streamInfo():dynamicMetadata():get("branchline")
  if kept and kept["minted"] then
    handle:headers():add("set-cookie",
      "{COOKIE}=" .. kept["minted"] .. "; Path=/; Max-Age=31536000; HttpOnly; SameSite=Lax")
  end
end
"""
