"""The page's style sheet: one place for colours, light and dark."""

LIGHT = """
--ink:#1f2329;--muted:#5f6873;--grid:#dfe3e8;--paper:#fff;--back:#f5f6f8;--accent:#0b6bcb;
--test:#d9480f;--s1:#4c8fd6;--s2:#7a5af0;--s3:#c43fb5;--s4:#ee5d5d;--plain:#9aa4af;--good:#dff3e4;
"""
DARK = """
--ink:#e6e9ed;--muted:#9aa4b0;--grid:#333a43;--paper:#1a1e24;--back:#12151a;--accent:#5aa9f8;
--test:#ff8a4c;--s1:#5b9fe6;--s2:#957bf5;--s3:#d65cc8;--s4:#f37676;--plain:#6d7783;--good:#1c3a2a;
"""
CSS = f"""
:root{{color-scheme:light dark;{LIGHT}}}
@media (prefers-color-scheme:dark){{:root{{{DARK}}}}}
*{{box-sizing:border-box}}
body{{margin:0;background:var(--back);color:var(--ink);overflow-wrap:anywhere;
font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif}}
main{{max-width:1140px;margin:0 auto;padding:36px 20px 60px}}
h1{{font-size:28px;line-height:1.25;margin:0 0 6px;letter-spacing:-.01em}}
h2{{font-size:19px;margin:0 0 4px}}
h3{{font-size:15px;margin:0}}
p{{margin:0 0 10px;max-width:76ch}}
section{{background:var(--paper);border:1px solid var(--grid);border-radius:10px;
padding:22px 24px;margin:18px 0}}
.lead{{font-size:16.5px}}
.lacks{{color:var(--test)}}
.note{{color:var(--muted);font-size:13.5px;max-width:110ch}}
.tiles{{display:grid;grid-template-columns:repeat(auto-fit,minmax(140px,1fr));gap:12px;
margin:20px 0 0}}
.tiles div{{background:var(--paper);border:1px solid var(--grid);border-radius:10px;
padding:12px 16px}}
.tiles b{{display:block;font-size:22px;line-height:1.3;font-variant-numeric:tabular-nums}}
.tiles span{{color:var(--muted);font-size:13px}}
.scroll{{overflow-x:auto}}
table{{border-collapse:collapse;font-size:14px;font-variant-numeric:tabular-nums;margin:8px 0;
overflow-wrap:normal}}
.full{{width:100%}}
.sub{{display:block;color:var(--muted);font-size:12.5px;font-weight:400}}
th,td{{padding:6px 9px;text-align:right;border-bottom:1px solid var(--grid);white-space:nowrap}}
th:first-child,td:first-child{{text-align:left}}
thead th{{color:var(--muted);font-weight:600;font-size:13px;vertical-align:bottom}}
tbody tr:hover td{{background:var(--back)}}
tr.reference td{{background:var(--good)}}
tr.published td{{color:var(--muted)}}
.matrix thead th{{white-space:normal}}
.words th,.words td{{text-align:left;white-space:normal;vertical-align:top}}
.words th{{font-weight:600;color:var(--muted);white-space:nowrap}}
b.ok{{color:var(--accent)}}b.failed{{color:var(--test)}}b.unsupported{{color:var(--muted)}}
.tag{{display:inline-block;border:1px solid var(--grid);border-radius:99px;padding:0 8px;
margin-left:6px;font-size:12px;color:var(--muted)}}
code,pre,.id{{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:.92em}}
pre{{background:var(--back);border:1px solid var(--grid);border-radius:8px;padding:12px 14px;
white-space:pre-wrap;margin:8px 0 14px}}
a{{color:var(--accent);text-decoration:none}}
a:hover{{text-decoration:underline}}
svg.plot{{width:100%;min-width:620px;height:auto;display:block;margin-top:8px}}
svg.plot *{{stroke-linejoin:round;stroke-linecap:butt}}
svg.plot text{{font-family:inherit!important}}
.hit{{fill:transparent;pointer-events:all}}
.hit:hover{{fill:var(--accent);fill-opacity:.25;stroke:var(--accent)}}
.network{{border-top:1px solid var(--grid);padding:16px 0 10px}}
.network:first-of-type{{border-top:0}}
.network:target h3{{color:var(--accent)}}
svg.net{{display:block;max-width:max(100%,860px);height:auto}}
svg.net text{{font-size:11px;fill:var(--muted);text-anchor:middle}}
svg.net .strong{{fill:var(--ink);font-weight:600}}
svg.net rect{{fill:var(--plain)}}
svg.net .stem rect{{fill:var(--ink);fill-opacity:.65}}
svg.net .s1 rect{{fill:var(--s1)}}svg.net .s2 rect{{fill:var(--s2)}}
svg.net .s3 rect{{fill:var(--s3)}}svg.net .s4 rect{{fill:var(--s4)}}
svg.net rect.squeeze{{fill-opacity:.5}}
svg.net path{{fill:none;stroke:var(--muted)}}
svg.net .arc{{stroke-opacity:.55;stroke-width:.9}}
svg.net .many{{stroke-opacity:.3;stroke-width:.7}}
svg.net g:hover rect{{fill:var(--ink)}}
details summary{{cursor:pointer;color:var(--muted);font-size:13.5px}}
footer{{color:var(--muted);font-size:13.5px;padding:6px 4px}}
footer dt{{font-weight:600;color:var(--ink)}}footer dd{{margin:0 0 8px}}
@media print{{body{{background:#fff}}section{{break-inside:avoid}}}}
"""
