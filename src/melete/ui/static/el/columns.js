// Curves as columns on one x axis, which is what uPlot draws. Points are appended in place; a point that falls between
// others is spliced in. Where a curve has no point at an x, the column holds `undefined`, and the line goes on across it;
// `null` breaks the line, where values were not finite.

/**
 * @typedef {object} Curve
 * @property {string} run
 * @property {string} key
 * @property {number} place place of the run among those of the chart
 * @property {number[]} steps
 * @property {(number | null)[]} times_s
 * @property {number[]} values
 * @property {number} not_finite
 * @property {number[]} gaps steps whose value is not finite
 * @property {boolean} [broken] whether such a value came after the last point
 */

/** Columns of some curves: x, then for each curve its values, then for each curve its moving average. */
export class Columns {
  /**
   * @param {Curve[]} curves
   * @param {{x: string, log: boolean, smooth: number}} view
   * @param {(curve: Curve) => number} begun when the run of a curve began, for the relative axis
   */
  constructor(curves, view, begun) {
    this.curves = curves;
    this.view = { x: view.x, log: view.log, smooth: view.smooth };
    this.begun = begun;
    /** Values at or below 0, which a logarithmic axis has no place for. */
    this.notPositive = 0;
    this.data = Array.from({ length: 1 + 2 * curves.length }, () => []);
    this.averages = curves.map(() => ({ sum: 0, weight: 0 }));
    this.fill();
  }

  /** @param {Curve} curve @param {number} at place of the point in its curve */
  x(curve, at) {
    if (this.view.x === "step") return curve.steps[at];
    const time = curve.times_s[at] ?? NaN;
    return this.view.x === "time" ? time : time - this.begun(curve);
  }

  /** Merges all curves: their points in the order of x. */
  fill() {
    const xs = new Set();
    for (const curve of this.curves) {
      for (let at = 0; at < curve.values.length; at++) xs.add(this.x(curve, at));
    }
    const gaps = this.curves.map((curve) => curve.gaps.map((step) => this.gap(curve, step)));
    gaps.flat().forEach((x) => xs.add(x));
    xs.delete(NaN);
    const axis = [...xs].sort((a, b) => a - b);
    const places = new Map(axis.map((x, place) => [x, place]));
    this.data[0] = axis;
    for (let column = 1; column < this.data.length; column++) {
      this.data[column] = new Array(axis.length).fill(undefined);
    }
    this.curves.forEach((curve, index) => {
      for (let at = 0; at < curve.values.length; at++) {
        const place = places.get(this.x(curve, at));
        if (place !== undefined) this.put(index, place, curve.values[at]);
      }
      for (const x of gaps[index]) {
        const place = places.get(x);
        if (place === undefined || this.data[1 + index][place] !== undefined) continue;
        this.data[1 + index][place] = this.data[1 + this.curves.length + index][place] = null;
      }
    });
  }

  /** Where the line of a curve is broken for a step without a finite value: amid the points around it. */
  gap(curve, step) {
    const after = curve.steps.findIndex((one) => one > step);
    return after > 0 ? (this.x(curve, after - 1) + this.x(curve, after)) / 2 : NaN;
  }

  /** @param {number} index of the curve @param {number} place row @param {number} value */
  put(index, place, value) {
    if (this.view.log && value <= 0) {
      this.notPositive += 1;
      return;
    }
    this.data[1 + index][place] = value;
    const average = this.averages[index];
    average.sum = this.view.smooth * average.sum + (1 - this.view.smooth) * value;
    average.weight = this.view.smooth * average.weight + (1 - this.view.smooth);
    this.data[1 + this.curves.length + index][place] = average.sum / average.weight;
  }

  /** Adds the newest point of a curve, which was put at its end already. @param {number} index of the curve */
  append(index) {
    const curve = this.curves[index];
    const x = this.x(curve, curve.values.length - 1);
    if (Number.isNaN(x)) return;
    const axis = this.data[0];
    let place = axis.length;
    while (place > 0 && axis[place - 1] > x) place -= 1;
    if (place > 0 && axis[place - 1] === x) place -= 1;
    else if (place === axis.length) this.data.forEach((column, number) => column.push(number ? undefined : x));
    else this.data.forEach((column, number) => column.splice(place, 0, number ? undefined : x));
    this.put(index, place, curve.values.at(-1));
  }
}

/** A figure in few characters. @param {number | null | undefined} value */
export function short(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e9)) return value.toExponential(2).replace("e+", "e");
  if (size >= 1e4) return new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 2 }).format(value);
  return String(Number(value.toPrecision(4)));
}

/** A duration in one or two units. @param {number} seconds */
export function span(seconds) {
  const size = Math.abs(seconds);
  if (size < 60) return `${Number(seconds.toPrecision(3))} s`;
  if (size < 3600) return `${Number((seconds / 60).toFixed(1))} min`;
  return `${Number((seconds / 3600).toFixed(2))} h`;
}
