"use strict";
// Draws the views of the JSON block.  Text reaches the document by textContent alone; nothing is fetched or stored.
// base.js, matrix.js and views.js are joined, in this order, into the page's one script.
const data = JSON.parse(document.getElementById("data").textContent);
const WORDS = {
  en: {
    other: "한국어", sentence: "Where does each word look?",
    sentenceHelp: "Point at a word of the translation, or move with the arrow keys: the source words it looked at are shaded.",
    source: "Source", target: "Translation", matrix: "Alignment",
    matrixHelp: "One row per word written, one column per word read. The darker (on a dark page: the brighter), the more attention.",
    matrixName: "Attention weights; move with the arrow keys", hint: "Point at a cell, or move with the arrow keys.",
    table: "The numbers as a table", grid: "Layers and heads",
    gridHelp: "One small map per head; choose one to enlarge it. Each map is coloured up to its own largest weight. The bits say how widely a head looks: 0 is always one token.",
    encoder: "Encoder self-attention", decoder: "Decoder self-attention", cross: "Cross-attention",
    layer: "Layer", head: "Head", bits: "bits", close: "Close", previous: "Previous head", next: "Next head",
    pooled: (n) => `Long sentence: each cell stands for ${n} × ${n} tokens and shows the strongest of them.`,
    eos: "end of sentence", bos: "start", pad: "padding", unk: "unknown token", mask: "mask",
    overlay: "Where in the picture?", overlayHelp: "Choose what was found and a map: what was not looked at is veiled. The slider sets how much.",
    heatHelp: "Choose a layer and a head: what the answer looked at is coloured, each map from its smallest weight to its largest. The slider sets how strongly.",
    veil: "Veil", cellHelp: "Click a place of the picture, or move with the arrow keys: the map shows where this patch looks. Choose its layer and head:",
    made: "Made by qkv. This file is complete in itself and sends nothing.",
  },
  ko: {
    other: "English", sentence: "낱말마다 어디를 보았을까요?",
    sentenceHelp: "번역문의 낱말을 가리키거나 화살표 키로 옮겨 보세요. 그 낱말을 쓸 때 본 원문의 낱말이 칠해집니다.",
    source: "원문", target: "번역문", matrix: "정렬",
    matrixHelp: "행은 쓴 낱말, 열은 읽은 낱말입니다. 색이 짙을수록(어두운 화면에서는 밝을수록) 많이 본 것입니다.",
    matrixName: "주의 가중치. 화살표 키로 옮깁니다", hint: "칸을 가리키거나 화살표 키로 옮겨 보세요.",
    table: "숫자를 표로 보기", grid: "층과 헤드",
    gridHelp: "작은 그림 하나가 헤드 하나입니다. 누르면 커집니다. 색은 그림마다 가장 큰 가중치를 기준으로 칠합니다. 비트는 헤드가 얼마나 넓게 보는지를 나타내며, 0이면 늘 한 토큰만 봅니다.",
    encoder: "인코더 자기 주의", decoder: "디코더 자기 주의", cross: "교차 주의",
    layer: "층", head: "헤드", bits: "비트", close: "닫기", previous: "이전 헤드", next: "다음 헤드",
    pooled: (n) => `문장이 길어서 한 칸이 토큰 ${n} × ${n}개를 나타내며, 그중 가장 큰 값을 보입니다.`,
    eos: "문장 끝", bos: "시작", pad: "채움", unk: "모르는 토큰", mask: "가림",
    overlay: "그림의 어디를 보았을까요?", overlayHelp: "찾은 것과 지도를 고르면 보지 않은 곳이 가려집니다. 막대로 가리는 정도를 바꿉니다.",
    heatHelp: "층과 헤드를 고르면 답을 낼 때 본 곳이 칠해집니다. 색은 지도마다 가장 작은 가중치에서 가장 큰 가중치까지입니다. 막대로 진하기를 바꿉니다.",
    veil: "가리는 정도", cellHelp: "그림의 한 곳을 누르거나 화살표 키로 옮겨 보세요. 그 조각이 어디를 보는지 보입니다. 층과 헤드를 고릅니다:",
    made: "qkv가 만들었습니다. 이 파일은 그 자체로 완전하며 아무것도 보내지 않습니다.",
  },
};
let lang = data.lang;
const speakers = [];
const redraws = new Set();
const dark = window.matchMedia("(prefers-color-scheme: dark)");

function make(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}
function words(write) { // run now and again whenever the language changes
  speakers.push(write);
  write(WORDS[lang]);
}
function said(node, pick) {
  words((w) => { node.textContent = pick(w); });
  return node;
}
function named(node, pick) {
  words((w) => { node.setAttribute("aria-label", pick(w)); });
  return node;
}
const clamp = (x, low, high) => Math.min(high, Math.max(low, x));
const number = (thousandths) => (thousandths / 1000).toFixed(3);
const short = (thousandths) => (Math.round(thousandths / 10) / 100).toFixed(2);
const spoken = (token) => (token.name ? WORDS[lang][token.name] : token.text);
const largest = (weights) => Math.max(1, ...weights.map((row) => row.reduce((a, b) => Math.max(a, b), 0)));

// ---- colour: t in 0..1 on the computed map of the current theme
const rgb = (hex) => [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16));
const maps = { light: data.palettes.light.map(rgb), dark: data.palettes.dark.map(rgb) };
function colour(t) {
  const stops = maps[dark.matches ? "dark" : "light"];
  const at = clamp(t, 0, 1) * (stops.length - 1);
  const k = Math.min(Math.floor(at), stops.length - 2);
  return stops[k].map((c, i) => Math.round(c + (at - k) * (stops[k + 1][i] - c)));
}
const css = (c) => `rgb(${c[0]} ${c[1]} ${c[2]})`;
function inkOn(c) {
  const [r, g, b] = c.map((v) => (v / 255) ** 2.2);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.2 ? "#16181d" : "#ffffff";
}
function pixels(canvas, weights, top) { // one pixel per cell; CSS enlarges it
  canvas.height = Math.max(1, weights.length);
  canvas.width = Math.max(1, weights.length ? weights[0].length : 1);
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  weights.forEach((row, i) => row.forEach((w, j) => {
    image.data.set([...colour(w / top), 255], 4 * (i * canvas.width + j));
  }));
  context.putImageData(image, 0, 0);
}
