// The fused images of two scans side by side, drawn by NiiVue. Points are in mm, RAS, of the frame that a scan is shown
// in: two scans of one frame have their cross at the same point.
(() => {
  const told = JSON.parse(document.getElementById("viewer-data").textContent);
  const control = (name) => document.getElementById(`viewer-${name}`);
  const OUTLINE = [0, 229, 255], CHOSEN = [255, 255, 0];
  // From black to yellow, as inferno.
  const UPTAKE = {
    I: [0, 32, 96, 160, 224, 255], R: [0, 22, 106, 203, 249, 252], G: [0, 11, 23, 65, 142, 255],
    B: [4, 57, 110, 84, 9, 164], A: [0, 255, 255, 255, 255, 255],
  };

  class Pane {
    constructor(element) {
      this.element = element;
      this.select = element.querySelector("select");
      this.canvas = element.querySelector("canvas");
      this.nv = new niivue.Niivue({
        backColor: [0, 0, 0, 1], crosshairColor: [0.4, 1, 0.5, 0.75], crosshairWidth: 1, crosshairGap: 6,
        isRadiologicalConvention: true, sagittalNoseLeft: true, multiplanarLayout: 3, multiplanarShowRender: 0,
        dragMode: 3, dragAndDropEnabled: false, scrollRequiresFocus: true, isResizeCanvas: true, loadingText: "",
        logLevel: "silent", tileMargin: 4, fontColor: [0.85, 0.85, 0.85, 1], showAllOrientationMarkers: true,
        isCornerOrientationText: false, clipPlaneHotKey: "", cycleClipPlaneHotKey: "", viewModeHotKey: "",
      });
      for (const [index, scan] of told.scans.entries()) this.select.add(new Option(scan.title, index));
      this.select.addEventListener("change", () => this.show(Number(this.select.value)));
    }

    async attach() {
      await this.nv.attachToCanvas(this.canvas, false);
      this.nv.addColormap("uptake", UPTAKE);
      this.nv.onLocationChange = (location) => move(this, location.mm);
    }

    // Replace what is shown by another scan; the cross stays at its point where the two share a frame.
    async show(index) {
      const scan = told.scans[index];
      this.wanted = scan;
      this.select.value = index;
      const kinds = scan.ct ? ["ct", "pet", "lesions"] : ["pet", "lesions"];
      const images = await Promise.all(kinds.map((kind) => niivue.NVImage.loadFromBase64({
        base64: document.getElementById(`volume-${scan.scan}-${kind}`).textContent.trim(),
        name: `${scan.scan}-${kind}.nii.gz`, cal_min: 0, cal_max: 1, // look() sets them
      })));
      if (this.wanted !== scan) return; // another one has been chosen meanwhile
      const before = this.scan, point = before && this.point();
      this.scan = scan;
      // All at once, and drawn once, by look(): addVolume would draw after each.
      this.nv.volumes = images;
      this.nv.back = images[0];
      this.nv.overlays = images.slice(1);
      this.images = Object.fromEntries(kinds.map((kind, i) => [kind, images[i]]));
      this.images.pet.setColormap("uptake");
      this.look();
      this.element.querySelector(".remark").textContent = scan.remark;
      this.canvas.setAttribute("aria-label", `Fused images of ${scan.title}`);
      const other = panes.find((pane) => pane !== this && pane.scan?.frame === scan.frame);
      if (other) this.go(other.point());
      else if (before?.frame === scan.frame) this.go(point);
      else if (chosen) this.goToLesion(chosen);
      else this.read();
      this.element.dataset.shown = scan.scan;
    }

    // Windows, opacities and colours as the controls say; the lowest layer, which takes longest, only if it changes.
    look(lowest = true) {
      const { ct, pet, lesions } = this.images;
      const mix = ct ? control("mix").value : "pet";
      const upper = Number(control("suv").value);
      // On CT, uptake below half the scale is drawn the fainter, the lower it is (by the square).
      pet.colormapType = mix === "fused" ? 1 : 0;
      [pet.cal_min, pet.cal_max] = [mix === "fused" ? upper / 2 : 0, upper];
      pet.opacity = mix === "ct" ? 0 : mix === "pet" ? 1 : Number(control("opacity").value) / 100;
      if (ct) {
        [ct.cal_min, ct.cal_max] = control("ct").value.split(" ").map(Number);
        ct.opacity = mix === "pet" ? 0 : 1;
      }
      const labels = this.scan.lesions.map((lesion) => lesion.label);
      const colour = (i) => this.scan.lesions.map(({ name }) => (name === chosen ? CHOSEN : OUTLINE)[i]);
      lesions.setColormapLabel({
        I: [0, ...labels], R: [0, ...colour(0)], G: [0, ...colour(1)], B: [0, ...colour(2)],
        A: [0, ...labels.map(() => 255)], labels: ["", ...this.scan.lesions.map((lesion) => lesion.name)],
      });
      // The inside of an outline is drawn with the opacity of its image: nearly none.
      const outlined = control("outlines").checked;
      lesions.opacity = outlined ? 0.01 : 0;
      this.nv.opts.atlasOutline = outlined ? 1 : 0;
      this.nv.opts.sliceType = Number(control("planes").value);
      if (lowest || !ct) {
        this.nv.updateGLVolume();
      } else {
        [pet, lesions].forEach((image, i) => this.nv.refreshLayers(image, i + 1));
        this.nv.drawScene();
      }
    }

    point() {
      return [...this.nv.frac2mm(this.nv.scene.crosshairPos, 0, true)].slice(0, 3);
    }

    go(point) {
      this.nv.scene.crosshairPos = this.nv.mm2frac(point, 0, true);
      this.nv.drawScene();
      this.read();
    }

    goToLesion(name) {
      const lesion = this.scan.lesions.find((one) => one.name === name);
      if (lesion) this.go(lesion.point);
    }

    value(kind) {
      const image = this.images[kind];
      return image.getValue(...image.mm2vox(this.point()));
    }

    // What lies under the cross, in words.
    read() {
      const suv = this.value("pet");
      const at = this.scan.lesions.find((lesion) => lesion.label === this.value("lesions"));
      const peak = at && at.suv_peak !== null ? `, SUVpeak ${at.suv_peak.toFixed(1)}` : "";
      const words = suv < 0 ? "not seen by this scan" : `SUV ${suv.toFixed(1)} (reduced image)`;
      this.element.querySelector(".reading").textContent = `${words}${at ? ` · ${at.name}${peak}` : ""}`;
    }
  }

  const panes = [...document.querySelectorAll("#viewer .pane")].map((element) => new Pane(element));
  let chosen = "", moving = false;

  // One pane's cross was moved: those of the same frame follow.
  function move(from, point) {
    if (moving || !from.images) return;
    moving = true;
    from.read();
    panes.filter((pane) => pane !== from && pane.images && pane.scan.frame === from.scan.frame)
      .forEach((pane) => pane.go([...point].slice(0, 3)));
    moving = false;
  }

  // All panes to one lesion: linked ones to one point, the others each to their own.
  function choose(name) {
    chosen = name;
    control("lesion").value = name;
    for (const row of document.querySelectorAll("tr[data-lesion]")) {
      if (row.dataset.lesion === name) row.setAttribute("aria-current", "true");
      else row.removeAttribute("aria-current");
    }
    const points = {}; // of each frame: one side may not have measured a lesion that the other has
    for (const { scan } of panes) points[scan.frame] ??= scan.lesions.find((lesion) => lesion.name === name)?.point;
    for (const pane of panes) {
      if (points[pane.scan.frame]) pane.go(points[pane.scan.frame]);
      pane.look(false);
    }
  }

  function connect() {
    const hottest = told.scans[0].lesions.reduce((a, b) => (a && a.suv_peak >= b.suv_peak ? a : b), null);
    if (hottest) panes[0].goToLesion(hottest.name), move(panes[0], hottest.point);
    const names = [...new Set(told.scans.flatMap((scan) => scan.lesions.map((lesion) => lesion.name)))].sort();
    for (const name of names) control("lesion").add(new Option(name, name));
    control("lesion").addEventListener("change", (event) => choose(event.target.value));
    for (const name of ["planes", "mix", "suv", "opacity", "ct", "outlines"]) {
      const lowest = name === "mix" || name === "ct";
      control(name).addEventListener("input", () => panes.forEach((pane) => pane.look(lowest)));
    }
    control("suv").addEventListener("input", (event) => {
      for (const name of ["suv-shown", "scale"]) control(name).textContent = event.target.value;
    });
    control("opacity").addEventListener("input", (event) => {
      control("opacity-shown").textContent = `${event.target.value} %`;
    });
    for (const row of document.querySelectorAll("tr[data-lesion]")) {
      if (!names.includes(row.dataset.lesion)) continue;
      const show = () => {
        choose(row.dataset.lesion);
        document.getElementById("viewer").scrollIntoView({ block: "nearest" });
      };
      row.tabIndex = 0;
      row.title = `Show ${row.dataset.lesion} in the images`;
      row.addEventListener("click", show);
      row.addEventListener("keydown", (event) => {
        if (event.target !== row || (event.key !== "Enter" && event.key !== " ")) return;
        event.preventDefault();
        show();
      });
    }
  }

  async function start() {
    await new Promise((drawn) => requestAnimationFrame(() => setTimeout(drawn))); // the page is seen first
    const probe = document.createElement("canvas").getContext("webgl2");
    if (!probe) return;
    probe.getExtension("WEBGL_lose_context")?.loseContext();
    document.getElementById("viewer").hidden = false;
    document.getElementById("viewer-absent").hidden = true;
    for (const [index, pane] of panes.entries()) {
      await pane.attach();
      await pane.show(told.opened[index]);
    }
    connect();
    globalThis.theraflowViewer = { panes, choose };
    document.getElementById("viewer").dataset.ready = "";
  }

  start();

  const turn = document.getElementById("turn");
  const seen = JSON.parse(document.getElementById("seen-from").textContent);
  turn.addEventListener("input", () => {
    for (const strip of document.querySelectorAll(".turn")) strip.style.setProperty("--view", turn.value);
    document.getElementById("turn-shown").textContent = `from ${seen[turn.value]}`;
  });
})();
