/** Waits for the model, and asks for the document once it is there. */

const POLL = 1000;

/** The served document; while the model is being loaded, `tell` is told the reason. Nothing is asked after that. */
export async function whenReady(tell) {
  for (;;) {
    try {
      const ping = await fetch("ping");
      const served = ping.ok ? await fetch("openapi.json") : ping;
      if (served.ok) return await served.json();
      tell((await served.json()).error.message);
    } catch {
      tell("The server cannot be reached.");
    }
    await new Promise((resolve) => setTimeout(resolve, POLL));
  }
}
