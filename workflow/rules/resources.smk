# What the repository ships, made again from first principles.


# On request, by name: results/kernels/177Lu.tsv. Doses read resources/kernels, which `make kernels` fills from here.
rule kernel:
    input:
        emissions=RESOURCES / "emissions.tsv",
        cross_sections=RESOURCES / "photon_cross_sections_water.tsv",
    output:
        kernel=f"{RESULTS}/kernels/{{nuclide}}.tsv",
    log:
        f"{LOGS}/kernel.{{nuclide}}.log",
    benchmark:
        f"{LOGS}/kernel.{{nuclide}}.benchmark.tsv"
    wildcard_constraints:
        nuclide="[0-9]+m?[A-Z][a-z]?",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(2000),
        runtime=minutes(120),
    params:
        code=code_digest("theraflow.dosimetry.s_values.transport"),
    script:
        "../scripts/make_kernel.py"


# The library that draws the images of the reports comes from the internet, once: `make env` has done so already.
rule viewer:
    input:
        lock=RESOURCES / "viewer/package-lock.json",
    output:
        library=RESOURCES / "viewer/node_modules/@niivue/niivue/dist/niivue.umd.js",
    log:
        f"{LOGS}/viewer.log",
    localrule: True
    conda:
        "../../environment.yml"
    script:
        "../scripts/fetch_viewer.py"
