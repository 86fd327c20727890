"use strict";
/* The two plots, drawn by plotly in the page's own colors. */

const plots = (() => {
  const color = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const dark = () => matchMedia("(prefers-color-scheme: dark)").matches;

  /* A scale from few to many FLOPs that is readable on either background. */
  const SHADES = {
    light: ["#3b528b", "#2c728e", "#21918c", "#2f9e5f", "#7a9a01", "#c08a00", "#d1622b", "#a3262a"],
    dark: ["#8da2e8", "#6fb7d6", "#4fcfc4", "#74d99a", "#bddc5a", "#f0cf55", "#f3a06b", "#f28482"],
  };
  function shade(index, count) {
    const scale = SHADES[dark() ? "dark" : "light"];
    return scale[count < 2 ? 0 : Math.round(index * (scale.length - 1) / (count - 1))];
  }

  function layout(xTitle, yTitle, more) {
    const axis = {
      gridcolor: color("--line"), linecolor: color("--line"), zeroline: false, automargin: true, tickfont: {size: 12},
    };
    return {
      margin: {l: 55, r: 10, t: 8, b: 45}, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: {family: "inherit", size: 12, color: color("--ink")}, hovermode: "closest",
      uirevision: more.uirevision,
      legend: {orientation: "h", y: -0.2, yanchor: "top", x: 0, font: {size: 11}},
      hoverlabel: {bgcolor: color("--card"), bordercolor: color("--line"), font: {color: color("--ink")}},
      showlegend: more.showlegend ?? true,
      xaxis: {...axis, title: {text: xTitle}, ...more.xaxis},
      yaxis: {...axis, title: {text: yTitle}, ...more.yaxis},
      annotations: more.empty ? [{
        text: more.empty, showarrow: false, xref: "paper", yref: "paper", x: 0.5, y: 0.5,
        font: {color: color("--faint"), size: 14},
      }] : [],
    };
  }

  const options = {responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"]};

  /* Plotly reads HTML in names and hover texts; what comes from the server is only ever text. */
  const plain = text => String(text).replace(/[&<>]/g, sign => ({"&": "&amp;", "<": "&lt;", ">": "&gt;"}[sign]));

  /* 1, 2 and 5 times powers of ten; plotly labels a logarithmic axis that spans less than a decade by digits alone. */
  function ticks(values) {
    if (!values.length) return {};
    const low = Math.min(...values) / 1.5, high = Math.max(...values) * 1.5, tickvals = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
      tickvals.push(...[1, 2, 5].map(digit => digit * 10 ** power).filter(value => value >= low && value <= high));
    }
    const compact = new Intl.NumberFormat("en-US", {notation: "compact", maximumSignificantDigits: 3});
    return {tickvals, ticktext: tickvals.map(value => compact.format(value)), range: [Math.log10(low), Math.log10(high)]};
  }

  function isoFlop(element, profiles, edition) {
    const traces = profiles.flatMap((profile, index) => {
      const tint = shade(index, profiles.length);
      const dots = {
        x: profile.parameters, y: profile.losses, mode: "markers", type: "scatter", name: plain(profile.label),
        legendgroup: profile.label, marker: {color: tint, size: 8},
        hovertemplate: "%{x:.3s} parameters<br>loss %{y:.4f}<extra>" + plain(profile.label) + "</extra>",
      };
      const curve = {
        x: profile.curve_parameters, y: profile.curve_losses, mode: "lines", type: "scatter", hoverinfo: "skip",
        legendgroup: profile.label, showlegend: false, line: {color: tint, width: 1.5},
      };
      const optimum = {
        x: profile.optimum ? [profile.optimum[0]] : [], y: profile.optimum ? [profile.optimum[1]] : [],
        mode: "markers", type: "scatter", showlegend: false, legendgroup: profile.label,
        marker: {color: tint, size: 15, symbol: "star", line: {color: color("--card"), width: 1}},
        hovertemplate: "minimum at %{x:.3s} parameters<br>loss %{y:.4f}<extra></extra>",
      };
      return [curve, dots, optimum];
    });
    const empty = profiles.length ? "" : "Completed runs appear here.";
    return Plotly.react(element, traces, layout("parameters", "final loss (nats per token)", {
      xaxis: {type: "log", ...ticks(profiles.flatMap(profile => profile.parameters))}, empty,
      showlegend: profiles.length <= 9, uirevision: edition,
    }), options);
  }

  function lossCurves(element, curves, edition, empty) {
    const traces = curves.map((curve, index) => ({
      x: curve.x, y: curve.y, mode: curve.x.length > 1 ? "lines+markers" : "markers", type: "scatter",
      name: plain(curve.label), opacity: curve.best ? 1 : 0.75,
      line: {color: shade(index, curves.length), width: curve.best ? 3 : 1.5, dash: curve.running ? "dot" : "solid"},
      marker: {size: curve.best ? 6 : 4},
      hovertemplate: "%{x:.3s}<br>loss %{y:.4f}<extra>" + plain(curve.label) + "</extra>",
    }));
    return Plotly.react(element, traces, layout("training tokens", "validation loss (nats per token)", {
      xaxis: {type: "log", ...ticks(curves.flatMap(curve => curve.x))}, empty: curves.length ? "" : empty,
      showlegend: curves.length <= 9, uirevision: edition,
    }), options);
  }

  return {isoFlop, lossCurves};
})();
