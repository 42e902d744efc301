// Swagger UI as this gateway shows it. A token stays in its tab: it is there after a reload, and nowhere once the tab is closed.
"use strict";

const SCHEME = "bearer";
const KEPT_TOKEN = "image-share-gateway.token";

const keepInTab = {
  statePlugins: {
    auth: {
      wrapActions: {
        authorize: (original) => (authorized) => {
          const token = authorized[SCHEME]?.value;
          if (token) {
            sessionStorage.setItem(KEPT_TOKEN, token);
            tell("This tab has a token.");
          }
          return original(authorized);
        },
        logout: (original) => (schemes) => {
          sessionStorage.removeItem(KEPT_TOKEN);
          tell("");
          return original(schemes);
        },
      },
    },
  },
};

function tell(words) {
  document.getElementById("told").textContent = words;
}

function useToken(token) {
  // It goes past the actions that are wrapped above.
  sessionStorage.setItem(KEPT_TOKEN, token);
  window.ui.preauthorizeApiKey(SCHEME, token);
}

// What a gateway in earnest offers is an empty list.
async function offerSandboxTokens() {
  const answer = await fetch("../console/sandbox-tokens.json");
  const offered = answer.ok ? await answer.json() : [];
  const place = document.getElementById("sandbox-tokens");
  for (const { role, token } of offered) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = `Use the ${role}'s token`;
    button.addEventListener("click", () => {
      useToken(token);
      tell(`You are the ${role}.`);
    });
    place.append(button);
  }
  place.hidden = offered.length === 0;
}

window.ui = SwaggerUIBundle({
  url: "../openapi.json",
  dom_id: "#swagger-ui",
  presets: [SwaggerUIBundle.presets.apis],
  plugins: [keepInTab],
  layout: "BaseLayout",
  deepLinking: true,
  displayRequestDuration: true,
  requestSnippetsEnabled: true,
  requestSnippets: { defaultExpanded: true },
  showExtensions: false,
  tryItOutEnabled: true,
  // A validator would be another host.
  validatorUrl: "none",
  onComplete: () => {
    const token = sessionStorage.getItem(KEPT_TOKEN);
    if (token) {
      useToken(token);
      tell("This tab has a token.");
    }
    offerSandboxTokens();
  },
});
