"""This file is how a page of dossiers looks: its frame, its colours in light and dark, its measures on a desk and on a
phone.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

STYLE = """
:root{--paper:#faf9f7;--card:#fff;--ink:#1d1c1a;--soft:#67645e;--line:#e3e0da;--hue:#2f62b5;--band:#2f62b522;
--good:#1f7a4d;--goodbg:#e0f2e7;--bad:#b3341f;--badbg:#fbe5e0;--calm:#4a5568;--calmbg:#e9ecf1;--open:#8a5a00;
--openbg:#fbefd3}
@media(prefers-color-scheme:dark){:root{--paper:#141416;--card:#1c1c1f;--ink:#ecebe8;--soft:#a19d96;--line:#34343a;
--hue:#7fabf2;--band:#7fabf22b;--good:#6fcf97;--goodbg:#173526;--bad:#f2917d;--badbg:#43201a;--calm:#b6c0d0;
--calmbg:#2a2f38;--open:#e8bd62;--openbg:#3b2f14}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif;
-webkit-text-size-adjust:100%}
main{max-width:62rem;margin:0 auto;padding:2.5rem 1.5rem 4rem}
header{max-width:50rem}
h1{font-size:1.7rem;line-height:1.3;font-weight:620;letter-spacing:-.012em;margin:.5rem 0 .75rem;text-wrap:pretty}
h2{font-size:1.05rem;margin:0 0 .75rem;font-weight:650}
h3{font-size:.95rem;margin:1.25rem 0 .4rem;font-weight:620}
p{margin:.4rem 0}
a{color:var(--hue)}
.over{font-weight:600;display:flex;gap:.75rem;align-items:center;flex-wrap:wrap}
.facts,.note,figcaption,small{color:var(--soft);font-size:.85rem}
small{font-weight:400}
section{margin-top:2.75rem}
.badge{display:inline-block;font-size:.78rem;font-weight:600;line-height:1;padding:.3em .6em;border-radius:99px;
white-space:nowrap;color:var(--calm);background:var(--calmbg)}
.badge.good{color:var(--good);background:var(--goodbg)}
.badge.bad{color:var(--bad);background:var(--badbg)}
.badge.open{color:var(--open);background:var(--openbg)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(12rem,1fr));gap:1.25rem 2rem;margin-bottom:1.5rem}
.tile{border-top:2px solid var(--line);padding-top:.6rem}
.tile b{display:block;font-size:1.5rem;font-weight:620;line-height:1.25;letter-spacing:-.01em}
.tile span,.tile small{display:block}
.tile span{font-size:.88rem}
figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:10px;padding:1rem 1rem .9rem}
figcaption{max-width:50rem;margin-top:.5rem}
figcaption b{color:var(--ink);font-weight:600}
.phone{display:none}
svg{display:block;width:100%;height:auto;font:12px system-ui,-apple-system,"Segoe UI",sans-serif;overflow:visible}
svg .band{fill:var(--band)}
svg .edge{fill:none;stroke:var(--hue);stroke-opacity:.45;stroke-width:1}
svg .band.early{opacity:.45}
svg .edge.early{stroke-dasharray:2 4}
svg .middle{fill:none;stroke:var(--hue);stroke-width:2;stroke-linejoin:round}
svg .grid,svg .axis{stroke:var(--line)}
svg .zero{stroke:var(--soft);stroke-width:1.2}
svg .wanted{stroke:var(--good);stroke-width:1.2;stroke-dasharray:5 4}
svg .bar{stroke:var(--bad)}
svg .verdict{stroke:var(--ink);stroke-width:1.2}
svg text{fill:var(--soft);stroke:none;font-variant-numeric:tabular-nums}
svg text.said{paint-order:stroke;stroke:var(--card);stroke-width:4px;stroke-linejoin:round;stroke-dasharray:none}
svg text.said.wanted{fill:var(--good)}
svg text.said.verdict{fill:var(--ink);font-weight:600}
svg text.value.main{fill:var(--ink);font-weight:650}
svg .dot{fill:var(--hue);stroke:var(--card);stroke-width:2}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:2.5rem}
blockquote{margin:0;padding-left:1rem;border-left:3px solid var(--hue)}
ul{padding-left:1.1rem;margin:.3rem 0}
dl{margin:0}
.pairs div{display:flex;justify-content:space-between;gap:1.5rem;padding:.32rem 0;border-bottom:1px solid var(--line)}
.pairs dt{color:var(--soft)}
.pairs dd{margin:0;text-align:right;font-variant-numeric:tabular-nums}
.table{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:.92rem;margin-bottom:.75rem}
th{font-weight:500;color:var(--soft);font-size:.82rem;text-align:left}
td small{display:block}
th,td{padding:.4rem 1rem .4rem 0;border-bottom:1px solid var(--line);vertical-align:top}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(19rem,1fr));gap:1.25rem}
.card{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:.9rem 1.1rem;min-width:0}
.card h3{margin-top:0;display:flex;justify-content:space-between;gap:1rem;align-items:center}
.timeline{list-style:none;margin:0;padding:0}
.timeline li{display:grid;grid-template-columns:12rem 1fr;gap:1rem;padding:.15rem 0 .8rem}
.timeline time{color:var(--soft);font-size:.85rem;padding-top:.1rem;font-variant-numeric:tabular-nums}
.timeline li>div{border-left:3px solid var(--line);padding-left:1rem;min-width:0}
.timeline .good>div{border-color:var(--good)}
.timeline .bad>div{border-color:var(--bad)}
.timeline .calm>div{border-color:var(--calm)}
.timeline .open>div{border-color:var(--open)}
.timeline p{margin:.1rem 0;color:var(--soft);font-size:.9rem;overflow-wrap:anywhere}
pre{font:.8rem/1.5 ui-monospace,SFMono-Regular,Menlo,monospace;background:var(--calmbg);padding:.6rem .8rem;
border-radius:6px;overflow-x:auto;margin:.4rem 0;white-space:pre-wrap;overflow-wrap:anywhere}
code{font:.82em ui-monospace,SFMono-Regular,Menlo,monospace;overflow-wrap:anywhere}
.hashes{display:grid;grid-template-columns:max-content 1fr;gap:.3rem 1.5rem;font-size:.9rem}
.hashes dt{color:var(--soft)}
.hashes dd{margin:0;min-width:0}
details{margin-top:1rem}
summary{cursor:pointer;font-weight:600;margin-bottom:.5rem}
@media(max-width:44rem){main{padding:1.5rem 1rem 3rem}h1{font-size:1.3rem}.desk{display:none}.phone{display:block}
.pair{grid-template-columns:1fr;gap:2rem}.tiles{grid-template-columns:1fr 1fr;gap:1rem 1.25rem}.tile b{font-size:1.2rem}
figure{padding:.75rem .6rem .8rem}.timeline li{grid-template-columns:1fr;gap:.1rem}
.hashes{grid-template-columns:1fr;gap:0}.hashes dd{margin-bottom:.6rem}section{margin-top:2.25rem}}
@media print{body{background:#fff}figure,.card{break-inside:avoid}details{display:block}}
"""


def framed(title: str, *lines: str, after: Iterable[str] = ()) -> str:
    """A page that needs nothing else: its lines, and what stands `after` them and is not seen."""
    return "\n".join([
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        "</head>",
        "<body>",
        "<main>",
        *lines,
        "</main>",
        *after,
        "</body>",
        "</html>",
        "",
    ])  # fmt: skip
